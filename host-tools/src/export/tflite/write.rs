//! The file's bytes.

use crate::import::tflite::IDENTIFIER;
use crate::import::tflite::schema::slot;
use flatbuffers::{
    FlatBufferBuilder, ForwardsUOffset, Push, PushAlignment, TableFinishedWIPOffset, Vector,
    WIPOffset,
};

/// A tensor to write.
pub(super) struct Element {
    pub name: String,
    pub dims: Vec<i32>,
    /// The schema's `TensorType`.
    pub kind: i8,
    /// None, one, or one per index of `axis`.
    pub scales: Vec<f32>,
    pub zero_point: i32,
    pub axis: i32,
    /// Empty for what is computed.
    pub data: Vec<u8>,
}

/// A field of an operator's options, by its number in the schema.
pub(super) struct Field(pub u16, pub Value);

/// What a field holds.
pub(super) enum Value {
    I8(i8),
    I32(i32),
    F32(f32),
}

/// An operator to write.
pub(super) struct Operator {
    /// The schema's `BuiltinOperator`.
    pub code: i32,
    pub version: i32,
    pub inputs: Vec<i32>,
    pub output: i32,
    /// The schema's code of the options' table; 0 for none.
    pub union: u8,
    pub options: Vec<Field>,
}

/// All that the file will hold.
#[derive(Default)]
pub(super) struct Plan {
    pub tensors: Vec<Element>,
    pub operators: Vec<Operator>,
}

type Table = WIPOffset<TableFinishedWIPOffset>;
type Builder = FlatBufferBuilder<'static>;

/// What the schema demands of the elements of a tensor: they start at a multiple of 16.
struct Align16;

impl Push for Align16 {
    type Output = ();
    unsafe fn push(&self, _: &mut [u8], _: usize) {}
    fn size() -> usize {
        0
    }
    fn alignment() -> PushAlignment {
        PushAlignment::new(16)
    }
}

impl Plan {
    /// Adds a tensor and gives its index.
    pub fn add(&mut self, element: Element) -> i32 {
        self.tensors.push(element);
        self.tensors.len() as i32 - 1
    }

    /// The bytes of the file.
    pub fn write(&self, input: i32, output: i32) -> Vec<u8> {
        let mut b = FlatBufferBuilder::new();
        // buffer 0 is empty by definition
        let mut buffers = vec![buffer(&mut b, &[])];
        let mut tensors = Vec::new();
        for element in &self.tensors {
            let index = match element.data.is_empty() {
                true => 0,
                false => {
                    buffers.push(buffer(&mut b, &element.data));
                    buffers.len() as u32 - 1
                }
            };
            tensors.push(tensor(&mut b, element, index));
        }
        let mut codes: Vec<(i32, i32)> =
            self.operators.iter().map(|o| (o.code, o.version)).collect();
        codes.sort_unstable();
        codes.dedup();
        let operators: Vec<Table> = self
            .operators
            .iter()
            .map(|o| operator(&mut b, o, &codes))
            .collect();
        let codes: Vec<Table> = codes
            .iter()
            .map(|&code| operator_code(&mut b, code))
            .collect();

        let tensors = list(&mut b, &tensors);
        let operators = list(&mut b, &operators);
        let inputs = b.create_vector(&[input]);
        let outputs = b.create_vector(&[output]);
        let name = b.create_string("main");
        let start = b.start_table();
        b.push_slot_always(slot(0), tensors);
        b.push_slot_always(slot(1), inputs);
        b.push_slot_always(slot(2), outputs);
        b.push_slot_always(slot(3), operators);
        b.push_slot_always(slot(4), name);
        let graph = b.end_table(start);

        let graphs = list(&mut b, &[graph]);
        let codes = list(&mut b, &codes);
        let buffers = list(&mut b, &buffers);
        let description = b.create_string("written by foolproof");
        let start = b.start_table();
        b.push_slot_always(slot(0), 3_u32);
        b.push_slot_always(slot(1), codes);
        b.push_slot_always(slot(2), graphs);
        b.push_slot_always(slot(3), description);
        b.push_slot_always(slot(4), buffers);
        let model = b.end_table(start);
        let identifier = std::str::from_utf8(IDENTIFIER).ok();
        b.finish(model, identifier);
        b.finished_data().to_vec()
    }
}

fn list(
    b: &mut Builder,
    tables: &[Table],
) -> WIPOffset<Vector<'static, ForwardsUOffset<TableFinishedWIPOffset>>> {
    b.create_vector(tables)
}

fn buffer(b: &mut Builder, data: &[u8]) -> Table {
    let data = (!data.is_empty()).then(|| {
        // it is written from its end: so many bytes after it make it start where it should
        b.push(Align16);
        for _ in 0..data.len().next_multiple_of(16) - data.len() {
            b.push(0_u8);
        }
        b.create_vector(data)
    });
    let start = b.start_table();
    if let Some(data) = data {
        b.push_slot_always(slot(0), data);
    }
    b.end_table(start)
}

fn tensor(b: &mut Builder, element: &Element, buffer: u32) -> Table {
    let quantization = (!element.scales.is_empty()).then(|| {
        let scales = b.create_vector(&element.scales);
        let zero_points =
            b.create_vector(&vec![i64::from(element.zero_point); element.scales.len()]);
        let start = b.start_table();
        b.push_slot_always(slot(2), scales);
        b.push_slot_always(slot(3), zero_points);
        b.push_slot_always(slot(6), element.axis);
        b.end_table(start)
    });
    let dims = b.create_vector(&element.dims);
    let name = b.create_string(&element.name);
    let start = b.start_table();
    b.push_slot_always(slot(0), dims);
    b.push_slot_always(slot(1), element.kind);
    b.push_slot_always(slot(2), buffer);
    b.push_slot_always(slot(3), name);
    if let Some(quantization) = quantization {
        b.push_slot_always(slot(4), quantization);
    }
    b.push_slot_always(slot(8), true);
    b.end_table(start)
}

fn operator(b: &mut Builder, operator: &Operator, codes: &[(i32, i32)]) -> Table {
    let inputs = b.create_vector(&operator.inputs);
    let outputs = b.create_vector(&[operator.output]);
    let options = (operator.union != 0).then(|| {
        let start = b.start_table();
        for Field(id, value) in &operator.options {
            match *value {
                Value::I8(v) => b.push_slot_always(slot(*id), v),
                Value::I32(v) => b.push_slot_always(slot(*id), v),
                Value::F32(v) => b.push_slot_always(slot(*id), v),
            }
        }
        b.end_table(start)
    });
    let own = (operator.code, operator.version);
    let index = codes.iter().position(|&code| code == own).unwrap_or(0);
    let start = b.start_table();
    b.push_slot_always(slot(0), index as u32);
    b.push_slot_always(slot(1), inputs);
    b.push_slot_always(slot(2), outputs);
    if let Some(options) = options {
        b.push_slot_always(slot(3), operator.union);
        b.push_slot_always(slot(4), options);
    }
    b.end_table(start)
}

/// The code twice: old readers know the first field only, which holds codes up to 127.
fn operator_code(b: &mut Builder, (code, version): (i32, i32)) -> Table {
    let start = b.start_table();
    b.push_slot_always(slot(0), code.min(127) as i8);
    b.push_slot_always(slot(2), version);
    b.push_slot_always(slot(3), code);
    b.end_table(start)
}
