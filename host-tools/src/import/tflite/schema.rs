//! The tables of a `.tflite` file that the importer reads, as the public schema (`tensorflow/lite/schema/schema.fbs`)
//! numbers their fields. Fields that nothing here reads are left out: they are then not verified either, and a file
//! may hold anything in them.
//!
//! One list describes each table. What is verified and what is read follow from it together, which is what makes the
//! accessors sound: none can read a field as another type than the one that was verified.

use flatbuffers::{
    Follow, ForwardsUOffset, InvalidFlatbuffer, Table, VOffsetT, Vector, Verifiable, Verifier,
    VerifierOptions,
};

type Strings<'a> = ForwardsUOffset<Vector<'a, u8>>;
type List<'a, T> = ForwardsUOffset<Vector<'a, T>>;
type Tables<'a, T> = ForwardsUOffset<Vector<'a, ForwardsUOffset<T>>>;

/// Where the vtable keeps the field with this number.
pub(crate) const fn slot(field: VOffsetT) -> VOffsetT {
    4 + 2 * field
}

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident { $($id:literal $field:ident: $type:ty),* $(,)? })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(super) struct $name<'a>(Table<'a>);

        impl<'a> Follow<'a> for $name<'a> {
            type Inner = $name<'a>;
            unsafe fn follow(buf: &'a [u8], loc: usize) -> Self::Inner {
                // SAFETY: the caller promises a table of this kind at `loc`.
                $name(unsafe { Table::new(buf, loc) })
            }
        }

        impl<'a> Verifiable for $name<'a> {
            fn run_verifier(v: &mut Verifier, pos: usize) -> Result<(), InvalidFlatbuffer> {
                v.visit_table(pos)?
                    $(.visit_field::<$type>(stringify!($field), slot($id), false)?)*
                    .finish();
                Ok(())
            }
        }

        impl<'a> $name<'a> {
            $(
                pub fn $field(&self) -> Option<<$type as Follow<'a>>::Inner> {
                    // SAFETY: a value of this type comes from `root` only, which verified the field as this type.
                    unsafe { self.0.get::<$type>(slot($id), None) }
                }
            )*
        }
    )* };
}

tables! {
    /// The file.
    Model {
        0 version: u32,
        1 operator_codes: Tables<'a, OperatorCode<'a>>,
        2 subgraphs: Tables<'a, SubGraph<'a>>,
        4 buffers: Tables<'a, Buffer<'a>>,
    }
    /// Which operator; the code is the larger of the two.
    OperatorCode {
        0 deprecated_builtin_code: i8,
        1 custom_code: Strings<'a>,
        3 builtin_code: i32,
    }
    /// A graph.
    SubGraph {
        0 tensors: Tables<'a, Tensor<'a>>,
        1 inputs: List<'a, i32>,
        2 outputs: List<'a, i32>,
        3 operators: Tables<'a, Operator<'a>>,
    }
    /// A tensor.
    Tensor {
        0 shape: List<'a, i32>,
        1 kind: i8,
        2 buffer: u32,
        3 name: Strings<'a>,
        4 quantization: ForwardsUOffset<Quantization<'a>>,
        5 is_variable: bool,
        // the offset of a table of which only the presence counts
        6 sparsity: u32,
    }
    /// Scales and zero points.
    Quantization {
        2 scale: List<'a, f32>,
        3 zero_point: List<'a, i64>,
        6 axis: i32,
    }
    /// Elements; empty for what is computed.
    Buffer {
        0 data: Strings<'a>,
        1 offset: u64,
        2 size: u64,
    }
    /// Options of CONV_2D.
    Conv2dOptions {
        0 padding: i8,
        1 stride_w: i32,
        2 stride_h: i32,
        3 activation: i8,
        4 dilation_w: i32,
        5 dilation_h: i32,
    }
    /// Options of DEPTHWISE_CONV_2D. Its depth multiplier follows from the shapes.
    DepthwiseOptions {
        0 padding: i8,
        1 stride_w: i32,
        2 stride_h: i32,
        4 activation: i8,
        5 dilation_w: i32,
        6 dilation_h: i32,
    }
    /// Options of the pools.
    PoolOptions {
        0 padding: i8,
        1 stride_w: i32,
        2 stride_h: i32,
        3 window_w: i32,
        4 window_h: i32,
        5 activation: i8,
    }
    /// Options of FULLY_CONNECTED.
    DenseOptions {
        0 activation: i8,
        1 weights_format: i8,
    }
    /// Options of SOFTMAX.
    SoftmaxOptions {
        0 beta: f32,
    }
    /// Options of CONCATENATION.
    ConcatOptions {
        0 axis: i32,
        1 activation: i8,
    }
    /// Options of ADD and of MUL: both have the fused activation first.
    ArithmeticOptions {
        0 activation: i8,
    }
    /// Options of LEAKY_RELU.
    LeakyReluOptions {
        0 alpha: f32,
    }
    /// Options of UNIDIRECTIONAL_SEQUENCE_LSTM.
    LstmOptions {
        0 activation: i8,
        1 cell_clip: f32,
        2 projection_clip: f32,
        3 time_major: bool,
        5 diagonal: bool,
    }
    /// Options of SVDF.
    SvdfOptions {
        0 rank: i32,
        1 activation: i8,
    }
    /// Options of PACK and UNPACK.
    PackOptions {
        1 axis: i32,
    }
    /// Options of VAR_HANDLE.
    VariableOptions {
        0 container: Strings<'a>,
        1 shared_name: Strings<'a>,
    }
    /// Options of CALL_ONCE.
    CallOnceOptions {
        0 graph: i32,
    }
    /// Options of STRIDED_SLICE.
    SliceOptions {
        0 begin_mask: i32,
        1 end_mask: i32,
        2 ellipsis_mask: i32,
        3 new_axis_mask: i32,
        4 shrink_axis_mask: i32,
        5 offset: bool,
    }
}

/// Options of an operator: the tables and their codes in the schema's union `BuiltinOptions`.
pub(super) trait Options<'a>: Follow<'a> + Verifiable {
    /// The codes under which the union holds this table.
    const CODES: &'static [u8];
}

macro_rules! options {
    ($($name:ident: $($code:literal)|+;)*) => {
        $(impl<'a> Options<'a> for $name<'a> {
            const CODES: &'static [u8] = &[$($code),+];
        })*

        /// Verifies the member of the union that the code names. One that nothing here reads is not looked at.
        fn verify_options(code: u8, v: &mut Verifier, pos: usize) -> Result<(), InvalidFlatbuffer> {
            match code {
                $($($code)|+ => ForwardsUOffset::<$name>::run_verifier(v, pos),)*
                _ => Ok(()),
            }
        }
    };
}

options! {
    Conv2dOptions: 1;
    DepthwiseOptions: 2;
    PoolOptions: 5;
    DenseOptions: 8;
    SoftmaxOptions: 9;
    ConcatOptions: 10;
    ArithmeticOptions: 11 | 21;
    SvdfOptions: 6;
    SliceOptions: 32;
    PackOptions: 59 | 64;
    LstmOptions: 71;
    CallOnceOptions: 103;
    VariableOptions: 111;
    LeakyReluOptions: 75;
}

/// An operator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operator<'a>(Table<'a>);

const OPCODE_INDEX: VOffsetT = slot(0);
const INPUTS: VOffsetT = slot(1);
const OUTPUTS: VOffsetT = slot(2);
const OPTIONS_CODE: VOffsetT = slot(3);
const OPTIONS: VOffsetT = slot(4);

impl<'a> Follow<'a> for Operator<'a> {
    type Inner = Operator<'a>;
    unsafe fn follow(buf: &'a [u8], loc: usize) -> Self::Inner {
        // SAFETY: the caller promises an operator at `loc`.
        Operator(unsafe { Table::new(buf, loc) })
    }
}

impl Verifiable for Operator<'_> {
    fn run_verifier(v: &mut Verifier, pos: usize) -> Result<(), InvalidFlatbuffer> {
        let mut table = v
            .visit_table(pos)?
            .visit_field::<u32>("opcode_index", OPCODE_INDEX, false)?
            .visit_field::<List<'_, i32>>("inputs", INPUTS, false)?
            .visit_field::<List<'_, i32>>("outputs", OUTPUTS, false)?;
        let code = table.deref(OPTIONS_CODE)?;
        let options = table.deref(OPTIONS)?;
        // without a code the options are never read
        if let (Some(code), Some(options)) = (code, options) {
            let code = table.verifier().get_u8(code)?;
            verify_options(code, table.verifier(), options)?;
        } else if let Some(code) = code {
            table.verifier().get_u8(code)?;
        }
        table.finish();
        Ok(())
    }
}

impl<'a> Operator<'a> {
    pub fn opcode_index(&self) -> u32 {
        // SAFETY: verified as this type in `run_verifier`; likewise below.
        unsafe { self.0.get::<u32>(OPCODE_INDEX, None) }.unwrap_or(0)
    }

    pub fn inputs(&self) -> Option<Vector<'a, i32>> {
        // SAFETY: as above.
        unsafe { self.0.get::<List<'a, i32>>(INPUTS, None) }
    }

    pub fn outputs(&self) -> Option<Vector<'a, i32>> {
        // SAFETY: as above.
        unsafe { self.0.get::<List<'a, i32>>(OUTPUTS, None) }
    }

    /// The options, where they are there and of this kind.
    pub fn options<T: Options<'a> + 'a>(&self) -> Option<T::Inner> {
        // SAFETY: as above.
        let code = unsafe { self.0.get::<u8>(OPTIONS_CODE, None) }?;
        if !T::CODES.contains(&code) {
            return None;
        }
        // SAFETY: `verify_options` verified the table that this code names.
        unsafe { self.0.get::<ForwardsUOffset<T>>(OPTIONS, None) }
    }
}

/// The verified file. Work and depth are bounded by its size.
pub(super) fn root(bytes: &[u8]) -> Result<Model<'_>, InvalidFlatbuffer> {
    let options = VerifierOptions {
        max_depth: 16,
        max_tables: bytes.len() / 4 + 16,
        // tables may share their parts, but not so often that the file unfolds to many times its size
        max_apparent_size: bytes.len().saturating_mul(8).saturating_add(1 << 16),
        // names are bytes here
        ignore_missing_null_terminator: true,
    };
    flatbuffers::root_with_opts::<Model<'_>>(&options, bytes)
}
