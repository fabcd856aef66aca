//! What is imported: one list, which the importer asks before anything else and from which `docs/operators.md` is made.

use super::names;

/// An operator that is imported, in the forms that the importer checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Its code in the schema.
    pub code: i32,
    /// What it becomes, in the engine's words; several where one does not do.
    pub becomes: &'static str,
    /// With int8 tensors.
    pub int8: bool,
    /// With float32 tensors.
    pub float: bool,
    /// How gradients go through.
    pub backward: Backward,
}

/// How gradients go through an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backward {
    /// Its own gradient; int8 straight through the rounding.
    Yes,
    /// Straight through: it only changes the number system.
    StraightThrough,
    /// None goes from one run into an earlier one.
    NotIntoEarlierRuns,
    /// It computes numbers that do not depend on the input.
    Constant,
}

impl Operator {
    /// Its name in the schema.
    pub fn name(&self) -> String {
        names::name(self.code)
    }
}

const fn both(code: i32, becomes: &'static str) -> Operator {
    Operator {
        code,
        becomes,
        int8: true,
        float: true,
        backward: Backward::Yes,
    }
}

const fn constant(code: i32) -> Operator {
    Operator {
        backward: Backward::Constant,
        ..both(code, "numbers, known before anything runs")
    }
}

/// All of them, by code.
pub const OPERATORS: &[Operator] = &[
    both(0, "Add"),
    both(1, "AvgPool2d"),
    both(2, "Concat"),
    both(3, "Conv2d"),
    both(4, "DepthwiseConv2d"),
    Operator {
        backward: Backward::StraightThrough,
        float: false,
        ..both(6, "Dequantize; of constants nothing")
    },
    both(9, "Dense"),
    both(14, "Unary, in int8 a table"),
    both(17, "MaxPool2d"),
    both(18, "Mul"),
    both(19, "Unary, in int8 a table"),
    both(21, "Unary, in int8 a table"),
    both(22, "Reshape"),
    both(25, "Softmax"),
    both(27, "Svdf"),
    both(28, "Unary, in int8 a table"),
    both(34, "Pad"),
    both(
        39,
        "Transpose; before FULLY_CONNECTED another order of its weights",
    ),
    both(40, "DepthwiseConv2d with weights 1; float AvgPool2d"),
    both(43, "Reshape"),
    both(44, "Lstm"),
    both(45, "Slice"),
    both(49, "Slice"),
    both(50, "LogSoftmax"),
    both(60, "Pad"),
    both(65, "Slice"),
    both(70, "Reshape"),
    constant(77),
    both(82, "ReduceMax"),
    both(83, "Concat"),
    both(88, "Slice"),
    both(98, "Unary, in int8 a table"),
    both(102, "Slice"),
    Operator {
        backward: Backward::StraightThrough,
        ..both(114, "Quantize, or Unary as a table")
    },
    constant(129),
    constant(142),
    Operator {
        backward: Backward::NotIntoEarlierRuns,
        ..both(143, "Recall, or what was assigned before")
    },
    Operator {
        backward: Backward::NotIntoEarlierRuns,
        ..both(144, "Remember")
    },
];

/// Whether an operator with this code is imported at all.
pub(super) fn is_known(code: i32) -> bool {
    OPERATORS.iter().any(|o| o.code == code)
}
