//! Operators that move elements and compute none.

use super::node::{Node, axis};
use super::value::{Layout, Value};
use super::{Importer, Reason};
use crate::graph::TensorData;
use foolproof::ops::{Activation, Add, Concat, MAX_INPUTS, Op, Pad};
use foolproof::tensor::MAX_RANK;

impl<'a> Importer<'a> {
    /// Flatten, Reshape, Squeeze, Unsqueeze.
    pub(super) fn reshape(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let x = self.any(node, 0)?;
        let dims = self.reshaped_dims(node, &x.dims)?;
        if dims.len() > MAX_RANK {
            return Err(format!(
                "its output has {} axes; at most {MAX_RANK} are supported",
                dims.len()
            ));
        }
        Ok(x.reshaped(dims))
    }

    /// The dimensions after a reshape of `from`.
    pub(super) fn reshaped_dims(
        &mut self,
        node: &Node<'a>,
        from: &[u32],
    ) -> Result<Vec<u32>, Reason> {
        let rank = from.len();
        let product = |dims: &[u32]| dims.iter().product::<u32>();
        match node.operator {
            "Flatten" => {
                let at = node.int("axis", 1);
                let at = if at == rank as i64 {
                    rank
                } else {
                    axis(at, rank)?
                };
                Ok(vec![product(&from[..at]), product(&from[at..])])
            }
            "Reshape" => {
                let shape = self.needed(node, 1, "shape")?;
                let (shape, zero_is_zero) = (shape.i64()?, node.int("allowzero", 0) != 0);
                let dims = resolve(shape, from, zero_is_zero);
                // a batch that the file fixes may be written into it
                match (dims, self.fixed_batch, shape.split_first()) {
                    (Err(_), Some(batch), Some((&first, rest))) if first == i64::from(batch) => {
                        resolve(&[&[1], rest].concat(), from, zero_is_zero)
                    }
                    (dims, _, _) => dims,
                }
            }
            "Squeeze" => {
                let gone = match self.axes(node)? {
                    Some(axes) => axes
                        .into_iter()
                        .map(|a| axis(a, rank))
                        .collect::<Result<Vec<_>, _>>()?,
                    None => (0..rank).filter(|&a| from[a] == 1).collect(),
                };
                if gone.iter().any(|&a| from[a] != 1) {
                    return Err(format!("it drops an axis longer than 1 of {from:?}"));
                }
                Ok((0..rank)
                    .filter(|a| !gone.contains(a))
                    .map(|a| from[a])
                    .collect())
            }
            _ => {
                let axes = self.axes(node)?.ok_or("it names no axes")?;
                if axes.len() > MAX_RANK {
                    return Err(format!("it adds {} axes", axes.len()));
                }
                let total = rank + axes.len();
                let new = axes
                    .into_iter()
                    .map(|a| axis(a, total))
                    .collect::<Result<Vec<_>, _>>()?;
                let mut old = from.iter();
                let dim = |a: usize| match new.contains(&a) {
                    true => Some(1),
                    false => old.next().copied(),
                };
                let dims: Option<Vec<u32>> = (0..total).map(dim).collect();
                match (dims, old.next()) {
                    (Some(dims), None) => Ok(dims),
                    _ => Err("it names an axis twice".into()),
                }
            }
        }
    }

    /// Axes as an attribute (before opset 13) or as input 1.
    fn axes(&mut self, node: &Node<'a>) -> Result<Option<Vec<i64>>, Reason> {
        if let Some(axes) = node.ints("axes") {
            return Ok(Some(axes.to_vec()));
        }
        if !node.has_input(1) {
            return Ok(None);
        }
        Ok(Some(self.needed(node, 1, "list of axes")?.i64()?.to_vec()))
    }

    /// Costs nothing: the elements stay where they are.
    pub(super) fn transpose(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let x = self.any(node, 0)?;
        let from = permutation(node, x.dims.len())?;
        self.turned(&x, &from)
    }

    /// With its axes in another order.
    pub(super) fn turned(&mut self, x: &Value, from: &[usize]) -> Result<Value, Reason> {
        let x = match x.layout {
            Layout::Axes(_) => x.clone(),
            Layout::Scattered { .. } => Value::plain(self.plain(x)?, x.dims.clone()),
        };
        let (_, order) = x.view();
        let dims = from.iter().map(|&a| x.dims[a]).collect();
        let to = |a: &usize| from.iter().position(|f| f == a).unwrap_or(0);
        let order: Vec<usize> = order.iter().map(to).collect();
        Ok(Value::new(x.id, dims, &order))
    }

    pub(super) fn concat(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let mut inputs = Vec::new();
        let target = self.target(node);
        for i in 0..node.inputs.len() {
            inputs.push(self.part_of_concat(node, i)?);
        }
        let raw = self.raw.contains_key(node.input(0)?);
        let differs = |name: &&str| self.raw.contains_key(name) != raw;
        if node.inputs.iter().any(differs) {
            return Err("it joins real and whole numbers".into());
        }
        let grid = match (raw, inputs.first()) {
            (true, Some(x)) => Some(self.graph.tensors[x.id].quant.clone()),
            _ => target.filter(|_| inputs.iter().all(|x| self.is_int8(x.id))),
        };
        for (i, x) in inputs.iter_mut().enumerate() {
            x.id = match &grid {
                Some(grid) => self.on_grid(x.id, grid, format!("{}.{i}", node.name()))?,
                None => self.real_id(x.id)?,
            };
        }
        self.joined(node, inputs)
    }

    /// Input `i`. A constant becomes an activation that is computed from nothing else.
    fn part_of_concat(&mut self, node: &Node<'a>, i: usize) -> Result<Value, Reason> {
        let Some(c) = self.constant(node, i)? else {
            return self.any(node, i);
        };
        let name = format!("{}.{i}", node.name());
        let values = TensorData::F32(c.f32()?.into_owned());
        let constant = self.fixed(name.clone(), &c.dims, values)?;
        let zero = self.fixed(format!("{name}.zero"), &[1], TensorData::F32(vec![0.0]))?;
        let op = Op::Add(Add::float(Activation::None));
        let id = self.emit(op, vec![constant, zero], name)?;
        Ok(Value::plain(id, c.dims.clone()))
    }

    /// Activations of one type and grid, one after another along an axis.
    pub(super) fn joined(&mut self, node: &Node<'a>, parts: Vec<Value>) -> Result<Value, Reason> {
        let first = parts.first().cloned().ok_or("it has no input")?;
        let rank = first.dims.len();
        let along = axis(node.int("axis", 1), rank)?;
        // in memory as the first of them; the joined axis may be one of those of length 1
        let axes = self.all_axes(&first);
        let mut inputs = Vec::new();
        let mut total = 0u32;
        for x in parts {
            if x.dims.len() != rank {
                return Err("its inputs have different numbers of axes".into());
            }
            total = total
                .checked_add(x.dims[along])
                .ok_or("its output is too large")?;
            inputs.push(self.arranged(&x, &axes)?);
        }
        let position = axes.iter().position(|&a| a == along).unwrap_or(0);
        let op = Op::Concat(Concat {
            axis: position as u8,
        });
        // an operator takes so many; more are joined bit by bit
        while inputs.len() > MAX_INPUTS {
            let rest = inputs.split_off(MAX_INPUTS);
            let part = self.emit(op, inputs, format!("{}.part", node.name()))?;
            inputs = std::iter::once(part).chain(rest).collect();
        }
        let id = self.emit(op, inputs, node.name())?;
        let mut dims = first.dims;
        dims[along] = total;
        Ok(Value::new(id, dims, &axes))
    }

    /// Zeros around a tensor.
    pub(super) fn pad(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let mut x = self.any(node, 0)?;
        let rank = x.dims.len();
        if node.text("mode").is_some_and(|mode| mode != b"constant") {
            return Err("its mode is not supported (constant is)".into());
        }
        let mut fill = node.float("value", 0.0);
        if node.has_input(2) {
            let c = self.needed(node, 2, "value")?;
            fill = c.scalar().ok_or("its value is not one number")?;
        }
        let raw = self.raw.contains_key(node.input(0)?);
        if raw && (fill != 0.0 || self.graph.tensors[x.id].quant.zero_point != 0) {
            return Err("it pads whole numbers".into());
        }
        if fill != 0.0 {
            if !fill.is_finite() {
                return Err(format!("it pads with {fill}"));
            }
            // zeros around what is left above the fill
            let real = self.real(node, 0)?;
            x = self.shifted(node, &real, -fill)?;
        }
        let amounts = match node.ints("pads") {
            Some(pads) => pads.to_vec(),
            None => self.needed(node, 1, "list of amounts")?.i64()?.to_vec(),
        };
        let padded = match node.has_input(3) {
            true => {
                let list = self.needed(node, 3, "list of axes")?;
                list.i64()?
                    .iter()
                    .map(|&a| axis(a, rank))
                    .collect::<Result<Vec<_>, _>>()?
            }
            false => (0..rank).collect(),
        };
        if amounts.len() != 2 * padded.len() {
            return Err(format!(
                "it has {} amounts for {} axes",
                amounts.len(),
                padded.len()
            ));
        }
        let Layout::Axes(long) = &x.layout else {
            return Err("its input was reshaped in a way that moves elements".into());
        };
        let mut axes: Vec<usize> = (0..rank).filter(|a| !long.contains(a)).collect();
        axes.extend(long);
        let input = self.arranged(&x, &axes)?;
        let mut pad = Pad {
            before: [0; MAX_RANK],
            after: [0; MAX_RANK],
        };
        let convert = |v: i64| {
            u16::try_from(v).map_err(|_| format!("it pads by {v}; 0 to 65535 are supported"))
        };
        let mut dims = x.dims.clone();
        for (i, &a) in padded.iter().enumerate() {
            let (before, after) = (convert(amounts[i])?, convert(amounts[i + padded.len()])?);
            let position = axes.iter().position(|&b| b == a).unwrap_or(0);
            (pad.before[position], pad.after[position]) = (before, after);
            dims[a] = x.dims[a].saturating_add(u32::from(before) + u32::from(after));
        }
        let id = self.emit(Op::Pad(pad), vec![input], node.name())?;
        let padded = Value::new(id, dims, &axes);
        match fill {
            0.0 => Ok(padded),
            fill => self.shifted(node, &padded, fill),
        }
    }
}

/// The axes of the input that the axes of a Transpose's output are.
pub(super) fn permutation(node: &Node<'_>, rank: usize) -> Result<Vec<usize>, Reason> {
    let Some(named) = node.ints("perm") else {
        return Ok((0..rank).rev().collect());
    };
    let axes = named
        .iter()
        .map(|&a| axis(a, rank))
        .collect::<Result<Vec<_>, _>>()?;
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    match sorted.iter().copied().eq(0..rank) {
        true => Ok(axes),
        false => Err(format!("its perm is {named:?} for {rank} axes")),
    }
}

/// The dimensions that Reshape asks for: 0 keeps one of the input's, -1 is what is left.
fn resolve(shape: &[i64], from: &[u32], zero_is_zero: bool) -> Result<Vec<u32>, Reason> {
    let wrong = || format!("it makes {shape:?} of {from:?}");
    let elements: u64 = from.iter().map(|&d| u64::from(d)).product();
    let mut dims = Vec::new();
    let mut open = None;
    let mut known = 1u64;
    if shape.len() > MAX_RANK {
        return Err(format!(
            "its output has {} axes; at most {MAX_RANK} are supported",
            shape.len()
        ));
    }
    for (i, &d) in shape.iter().enumerate() {
        let dim = match d {
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            0 if !zero_is_zero => *from.get(i).ok_or_else(wrong)?,
            d => u32::try_from(d).ok().filter(|&d| d > 0).ok_or_else(wrong)?,
        };
        known = known
            .checked_mul(u64::from(dim))
            .filter(|&k| k <= elements)
            .ok_or_else(wrong)?;
        dims.push(dim);
    }
    if let Some(i) = open {
        dims[i] = u32::try_from(elements / known).map_err(|_| wrong())?;
        known *= elements / known;
    }
    match known == elements {
        true => Ok(dims),
        false => Err(wrong()),
    }
}
