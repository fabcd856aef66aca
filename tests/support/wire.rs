//! Protocol-buffer messages field by field, and the tensors of ONNX files: enough to take a test case apart and to put a model
//! together anew.

/// One field of a message.
pub struct Field<'a> {
    pub number: u64,
    /// Of a length-delimited field.
    pub payload: &'a [u8],
    /// Of a varint.
    pub value: u64,
    /// The field as it stands in the message, its key in front.
    pub whole: &'a [u8],
}

fn varint(bytes: &[u8], at: &mut usize) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[*at];
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return value;
        }
    }
}

/// The fields of a message that is known to be well-formed.
pub fn fields(bytes: &[u8]) -> Vec<Field<'_>> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let key = varint(bytes, &mut at);
        let (mut payload, mut value) = (&bytes[..0], 0);
        match key & 7 {
            0 => value = varint(bytes, &mut at),
            1 => at += 8,
            2 => {
                let len = varint(bytes, &mut at) as usize;
                payload = &bytes[at..at + len];
                at += len;
            }
            5 => {
                payload = &bytes[at..at + 4];
                at += 4;
            }
            other => panic!("wire type {other}"),
        }
        all.push(Field {
            number: key >> 3,
            payload,
            value,
            whole: &bytes[start..at],
        });
    }
    all
}

/// A length-delimited field.
pub fn field(number: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for mut value in [number << 3 | 2, payload.len() as u64] {
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
    }
    bytes.extend(payload);
    bytes
}

/// The text of a field; empty where it is not there.
pub fn text(message: &[u8], number: u64) -> String {
    let found = fields(message).into_iter().rfind(|f| f.number == number);
    found.map_or_else(String::new, |f| {
        String::from_utf8_lossy(f.payload).into_owned()
    })
}

/// A tensor of a test case.
pub struct Tensor {
    /// ONNX's code of its element type.
    pub kind: u64,
    /// Its elements, where they are float, int8 or uint8.
    pub values: Option<Vec<f64>>,
}

pub const FLOAT: u64 = 1;
pub const UINT8: u64 = 2;
pub const INT8: u64 = 3;

/// A TensorProto.
pub fn tensor(bytes: &[u8]) -> Tensor {
    let mut kind = 0;
    let (mut raw, mut floats, mut ints) = (None, Vec::new(), Vec::new());
    let varints = |f: &Field<'_>| -> Vec<u64> {
        let mut at = 0;
        let mut all = Vec::new();
        while at < f.payload.len() {
            all.push(varint(f.payload, &mut at));
        }
        if f.payload.is_empty() {
            all.push(f.value);
        }
        all
    };
    for f in fields(bytes) {
        match f.number {
            2 => kind = f.value,
            4 => floats.extend(f.payload.chunks_exact(4).map(|b| f64::from(real(b)))),
            5 => ints.extend(varints(&f).into_iter().map(|v| v as i32)),
            9 => raw = Some(f.payload),
            _ => {}
        }
    }
    let values = match (kind, raw) {
        (FLOAT, Some(raw)) => Some(raw.chunks_exact(4).map(|b| f64::from(real(b))).collect()),
        (FLOAT, None) => Some(floats),
        (UINT8, Some(raw)) => Some(raw.iter().map(|&b| b.into()).collect()),
        (INT8, Some(raw)) => Some(raw.iter().map(|&b| (b as i8).into()).collect()),
        (UINT8 | INT8, None) => Some(ints.into_iter().map(f64::from).collect()),
        _ => None,
    };
    Tensor { kind, values }
}

fn real(bytes: &[u8]) -> f32 {
    f32::from_le_bytes(bytes.try_into().expect("four bytes"))
}
