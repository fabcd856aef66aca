//! Operators on constants, computed here: above all the arithmetic that exporters make of shapes.

use super::movement::permutation;
use super::node::{Node, axis};
use super::value::{Const, Elements, Grid, Slot, walk};
use super::{Importer, Reason, unknown};
use std::rc::Rc;

impl<'a> Importer<'a> {
    /// The operator's result, where all that it reads is constant and it is one of those that are computed here.
    pub(super) fn fold(&mut self, node: &Node<'a>) -> Result<Option<Const>, Reason> {
        match node.operator {
            "Constant" => return self.literal(node).map(Some),
            "Shape" => return self.shape(node).map(Some),
            _ => {}
        }
        let mut inputs: Vec<Rc<Const>> = Vec::new();
        for i in (0..node.inputs.len()).filter(|&i| node.has_input(i)) {
            match self.constant(node, i)? {
                Some(constant) => inputs.push(constant),
                None => return Ok(None),
            }
        }
        let Some(x) = inputs.first() else {
            return Ok(None);
        };
        self.spend(inputs.iter().map(|c| 8 * c.len()).sum())?;
        match (node.operator, x.clone()) {
            ("QuantizeLinear", x) => return self.quantized(node, &x).map(Some),
            ("DequantizeLinear", x) => return self.dequantized(node, &x).map(Some),
            ("Identity" | "Dropout", x) => return Ok(Some(Const::clone(&x))),
            ("Transpose", x) => return turned(node, &x).map(Some),
            _ => {}
        }
        let inputs = inputs
            .iter()
            .map(Const::real)
            .collect::<Result<Vec<_>, _>>()?;
        let x = &inputs[0];
        let with = |dims: Vec<u32>| Const::new(dims, x.data.clone());
        let result = match (node.operator, inputs.get(1)) {
            ("Flatten" | "Reshape" | "Squeeze" | "Unsqueeze", _) => {
                let dims = self.reshaped_dims(node, &x.dims)?;
                with(dims)
            }
            ("Cast", _) => cast(x, node.int("to", 0))?,
            ("Gather", Some(indices)) => gather(x, indices, node.int("axis", 0))?,
            ("Slice", _) => slice(node, &inputs)?,
            ("Concat", _) => concat(&inputs)?,
            ("Add" | "Sub" | "Mul" | "Div", Some(y)) => combine(node.operator, x, y)?,
            _ => return Ok(None),
        };
        Ok(Some(result))
    }

    fn literal(&mut self, node: &Node<'a>) -> Result<Const, Reason> {
        if let Some(tensor) = node.attribute("value").and_then(|a| a.t.as_ref()) {
            self.spend(super::prost_len(tensor))?;
            return Const::read(tensor);
        }
        let float =
            |values: &[f32], dims: Vec<u32>| Const::new(dims, Elements::F32(values.to_vec()));
        for (name, scalar) in [
            ("value_float", true),
            ("value_floats", false),
            ("value_int", true),
            ("value_ints", false),
        ] {
            let Some(attribute) = node.attribute(name) else {
                continue;
            };
            self.spend(8 * (1 + attribute.floats.len() + attribute.ints.len()))?;
            return Ok(match (name, scalar) {
                ("value_float", _) => float(&[attribute.f.unwrap_or(0.0)], vec![]),
                ("value_floats", _) => {
                    float(&attribute.floats, vec![attribute.floats.len() as u32])
                }
                (_, true) => Const::new(vec![], Elements::I64(vec![attribute.i.unwrap_or(0)])),
                _ => Const::integers(attribute.ints.clone()),
            });
        }
        Err("it holds no number or tensor".into())
    }

    fn shape(&mut self, node: &Node<'a>) -> Result<Const, Reason> {
        let name = node.input(0)?;
        let dims = match self.slots.get(name) {
            Some(Slot::Value(value)) => value.dims.clone(),
            Some(_) => self.needed(node, 0, "input")?.dims.clone(),
            None => return Err(unknown(name)),
        };
        let rank = dims.len() as i64;
        let bound =
            |v: i64| (if v < 0 { v.saturating_add(rank) } else { v }).clamp(0, rank) as usize;
        let (start, end) = (bound(node.int("start", 0)), bound(node.int("end", rank)));
        let part = dims.get(start..end).unwrap_or(&[]);
        Ok(Const::integers(part.iter().map(|&d| d.into()).collect()))
    }
}

/// The elements with these numbers.
fn chosen(x: &Const, dims: Vec<u32>, indices: &[usize]) -> Const {
    fn picked<T: Copy>(v: &[T], indices: &[usize]) -> Vec<T> {
        indices.iter().filter_map(|&i| v.get(i).copied()).collect()
    }
    let data = match &x.data {
        Elements::F32(v) => Elements::F32(picked(v, indices)),
        Elements::I64(v) => Elements::I64(picked(v, indices)),
        Elements::I8(v) => Elements::I8(picked(v, indices)),
        Elements::U8(v) => Elements::U8(picked(v, indices)),
    };
    Const::new(dims, data)
}

/// With its axes in another order; several scales stay with theirs.
fn turned(node: &Node<'_>, x: &Const) -> Result<Const, Reason> {
    let order = permutation(node, x.dims.len())?;
    let dims = order.iter().map(|&a| x.dims[a]).collect();
    let mut turned = chosen(x, dims, &walk(&x.dims, &order));
    turned.grid = x.grid.clone().map(|grid| Grid {
        axis: order.iter().position(|&a| a == grid.axis).unwrap_or(0),
        ..grid
    });
    Ok(turned)
}

fn cast(x: &Const, to: i64) -> Result<Const, Reason> {
    let data = match (&x.data, to) {
        (Elements::F32(v), 1 | 11) => Elements::F32(v.clone()),
        (Elements::I64(v), 1 | 11) => Elements::F32(v.iter().map(|&v| v as f32).collect()),
        (Elements::I64(v), 6 | 7) => Elements::I64(v.clone()),
        (Elements::F32(v), 6 | 7) => Elements::I64(v.iter().map(|&v| v as i64).collect()),
        (Elements::I8(v), 1 | 11) => Elements::F32(v.iter().map(|&v| v.into()).collect()),
        (Elements::U8(v), 1 | 11) => Elements::F32(v.iter().map(|&v| v.into()).collect()),
        (Elements::I8(v), 6 | 7) => Elements::I64(v.iter().map(|&v| v.into()).collect()),
        (Elements::U8(v), 6 | 7) => Elements::I64(v.iter().map(|&v| v.into()).collect()),
        (_, other) => {
            let name = i32::try_from(other).map_or_else(|_| "unknown".into(), super::type_name);
            return Err(format!(
                "it makes {name}; float, int32 and int64 are supported"
            ));
        }
    };
    Ok(Const::new(x.dims.clone(), data))
}

/// Of a list: the elements with these indices.
fn gather(x: &Const, indices: &Const, along: i64) -> Result<Const, Reason> {
    let ([len], 0 | -1) = (&x.dims[..], along) else {
        return Err("it is supported for constant lists only".into());
    };
    let len = *len as usize;
    let picked = indices
        .i64()?
        .iter()
        .map(|&i| axis(i, len))
        .collect::<Result<Vec<_>, _>>();
    let picked = picked.map_err(|_| "it picks an element that is not there")?;
    Ok(chosen(x, indices.dims.clone(), &picked))
}

/// Of a list: neighbouring elements, or every n-th.
fn slice(node: &Node<'_>, inputs: &[Rc<Const>]) -> Result<Const, Reason> {
    let [x, rest @ ..] = inputs else {
        return Err("it has no input".into());
    };
    let [len] = x.dims[..] else {
        return Err("it is supported for constant lists only".into());
    };
    let number = |name: &str, i: usize| -> Result<Option<i64>, Reason> {
        let list = match (node.ints(name), rest.get(i)) {
            (Some(list), _) => list,
            (None, Some(c)) => c.i64()?,
            (None, None) => return Ok(None),
        };
        match list {
            [one] => Ok(Some(*one)),
            _ => Err(format!("its {name} are not one number")),
        }
    };
    let len = i64::from(len);
    let (start, end) = (number("starts", 0)?, number("ends", 1)?);
    let (along, step) = (
        number("axes", 2)?.unwrap_or(0),
        number("steps", 3)?.unwrap_or(1),
    );
    if along != 0 && along != -1 || step < 1 {
        return Err("its axis or step is not supported for a list".into());
    }
    let bound = |v: i64| (if v < 0 { v.saturating_add(len) } else { v }).clamp(0, len) as usize;
    let (start, end) = (
        bound(start.ok_or("it has no start")?),
        bound(end.ok_or("it has no end")?),
    );
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    let picked: Vec<usize> = (start..end).step_by(step).collect();
    Ok(chosen(x, vec![picked.len() as u32], &picked))
}

/// Lists, one after the other.
fn concat(inputs: &[Rc<Const>]) -> Result<Const, Reason> {
    let mut all = Vec::new();
    for input in inputs {
        if input.dims.len() != 1 {
            return Err("of constants, it is supported for lists only".into());
        }
        all.extend_from_slice(input.i64()?);
    }
    Ok(Const::integers(all))
}

/// Element by element; one of the two may be a single number.
fn combine(operator: &str, x: &Const, y: &Const) -> Result<Const, Reason> {
    let single = |c: &Const| c.len() == 1;
    let dims = match () {
        () if x.dims == y.dims || single(y) && x.dims.len() >= y.dims.len() => &x.dims,
        () if single(x) && y.dims.len() >= x.dims.len() => &y.dims,
        () => return Err("of constants, it is supported for equal dimensions only".into()),
    };
    let len = dims.iter().map(|&d| d as usize).product::<usize>();
    let data = match (&x.data, &y.data) {
        (Elements::F32(a), Elements::F32(b)) => {
            let f = |a: f32, b: f32| match operator {
                "Add" => a + b,
                "Sub" => a - b,
                "Mul" => a * b,
                _ => a / b,
            };
            Elements::F32(
                (0..len)
                    .map(|i| f(a[i % a.len()], b[i % b.len()]))
                    .collect(),
            )
        }
        (Elements::I64(a), Elements::I64(b)) => {
            let f = |a: i64, b: i64| match operator {
                "Add" => a.checked_add(b),
                "Sub" => a.checked_sub(b),
                "Mul" => a.checked_mul(b),
                _ => a.checked_div(b),
            };
            let all: Option<Vec<i64>> = (0..len)
                .map(|i| f(a[i % a.len()], b[i % b.len()]))
                .collect();
            Elements::I64(all.ok_or("it overflows, or divides by zero")?)
        }
        _ => return Err("its inputs are of different types".into()),
    };
    Ok(Const::new(dims.clone(), data))
}
