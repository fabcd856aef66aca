//! Slice, Split, Gather, Tile, Expand, DepthToSpace, SpaceToDepth: some of the elements, or all of them elsewhere.

use super::node::{Node, axis};
use super::value::{Layout, Value};
use super::{Importer, Reason, Slot};
use foolproof::ops::{Concat, MAX_INPUTS, Op, Slice};

/// Pieces that one operator may be cut into.
const MOST_PIECES: usize = 64;

impl<'a> Importer<'a> {
    /// Elements `begin, begin + step, ...` of one axis of the file.
    fn part(
        &mut self,
        node: &Node<'a>,
        x: &Value,
        along: usize,
        (begin, count, step): (u32, u32, i32),
    ) -> Result<Value, Reason> {
        if begin == 0 && step == 1 && count == x.dims[along] {
            return Ok(x.clone());
        }
        let axes = self.all_axes(x);
        let input = self.arranged(x, &axes)?;
        let position = axes.iter().position(|&a| a == along).unwrap_or(0);
        let slice = Slice {
            axis: position as u8,
            begin,
            count,
            step,
        };
        let id = self.emit(Op::Slice(slice), vec![input], self.part_name(node))?;
        let mut dims = x.dims.clone();
        dims[along] = count;
        Ok(Value::new(id, dims, &axes))
    }

    /// All axes in their order in memory, those of length 1 in front.
    pub(super) fn all_axes(&self, x: &Value) -> Vec<usize> {
        let long = match &x.layout {
            Layout::Axes(long) => long.clone(),
            Layout::Scattered { .. } => super::value::long_axes(&x.dims),
        };
        let mut axes: Vec<usize> = (0..x.dims.len()).filter(|a| !long.contains(a)).collect();
        axes.extend(long);
        axes
    }

    /// Pieces one after another along an axis of the file.
    fn beside_one_another(
        &mut self,
        node: &Node<'a>,
        pieces: Vec<Value>,
        along: usize,
    ) -> Result<Value, Reason> {
        let first = pieces.first().cloned().ok_or("it takes nothing")?;
        let axes = self.all_axes(&first);
        let position = axes.iter().position(|&a| a == along).unwrap_or(0) as u8;
        let mut dims = first.dims.clone();
        dims[along] = pieces.iter().map(|p| p.dims[along]).sum();
        let mut inputs = Vec::new();
        for piece in &pieces {
            inputs.push(self.arranged(piece, &axes)?);
        }
        let op = Op::Concat(Concat { axis: position });
        while inputs.len() > 1 {
            let rest = inputs.split_off(inputs.len().min(MAX_INPUTS));
            let part = self.emit(op, inputs, self.part_name(node))?;
            inputs = std::iter::once(part).chain(rest).collect();
        }
        Ok(Value::new(inputs[0], dims, &axes))
    }

    pub(super) fn slice_of(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let mut x = self.any(node, 0)?;
        let rank = x.dims.len();
        let list = |importer: &mut Self, name: &str, i: usize| -> Result<_, Reason> {
            match node.ints(name) {
                Some(list) => Ok(Some(list.to_vec())),
                None if node.has_input(i) => {
                    Ok(Some(importer.needed(node, i, name)?.i64()?.to_vec()))
                }
                None => Ok(None),
            }
        };
        let starts = list(self, "starts", 1)?.ok_or("it has no starts")?;
        let ends = list(self, "ends", 2)?.ok_or("it has no ends")?;
        let axes = list(self, "axes", 3)?;
        let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = list(self, "steps", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
            return Err("its lists are of different lengths".into());
        }
        for i in 0..starts.len() {
            let along = axis(axes[i], rank)?;
            let n = i64::from(x.dims[along]);
            let step = i32::try_from(steps[i]).ok().filter(|&s| s != 0);
            let step = step.ok_or_else(|| format!("a step of it is {}", steps[i]))?;
            let from_start = |v: i64| if v < 0 { v.saturating_add(n) } else { v };
            let (begin, end) = match step > 0 {
                true => (
                    from_start(starts[i]).clamp(0, n),
                    from_start(ends[i]).clamp(0, n),
                ),
                false => (
                    from_start(starts[i]).clamp(0, n - 1),
                    from_start(ends[i]).clamp(-1, n - 1),
                ),
            };
            let room = (end - begin) * i64::from(step.signum());
            if room <= 0 {
                return Err("it takes nothing".into());
            }
            let count = (room as u64).div_ceil(u64::from(step.unsigned_abs()));
            // a step that is never taken may be too large to be one
            let step = if count == 1 { 1 } else { step };
            x = self.part(node, &x, along, (begin as u32, count as u32, step))?;
        }
        Ok(x)
    }

    /// All outputs; the first is the answer, the others find their own places.
    pub(super) fn split(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let x = self.any(node, 0)?;
        let along = axis(node.int("axis", 0), x.dims.len())?;
        let n = x.dims[along];
        let outputs = node.outputs.len() as u32;
        let sizes: Vec<u32> = match node.ints("split") {
            Some(sizes) => sizes.iter().map(|&s| s.try_into().unwrap_or(0)).collect(),
            None if node.has_input(1) => {
                let sizes = self.needed(node, 1, "list of sizes")?;
                let sizes = sizes.i64()?;
                sizes.iter().map(|&s| s.try_into().unwrap_or(0)).collect()
            }
            None => {
                let size = n.div_ceil(outputs.max(1));
                let left = |i: u32| n.saturating_sub(i * size).min(size);
                (0..outputs).map(left).collect()
            }
        };
        let total = sizes.iter().try_fold(0u32, |sum, &s| sum.checked_add(s));
        if sizes.len() != node.outputs.len() || sizes.contains(&0) || total != Some(n) {
            return Err(format!("it cuts an axis of {n} into {sizes:?}"));
        }
        let mut begin = 0;
        let mut first = None;
        let raw = self.raw.get(node.input(0)?).copied();
        for (&name, &size) in node.outputs.iter().zip(&sizes) {
            let part = self.part(node, &x, along, (begin, size, 1))?;
            begin += size;
            match first {
                None => first = Some(part),
                Some(_) => {
                    if let Some(unsigned) = raw {
                        self.raw.insert(name, unsigned);
                    }
                    self.slots.insert(name, Slot::Value(part));
                }
            }
        }
        first.ok_or_else(|| "it has no output".into())
    }

    /// Constant indices along one axis.
    pub(super) fn gather_of(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let x = self.any(node, 0)?;
        let rank = x.dims.len();
        let along = axis(node.int("axis", 0), rank)?;
        let indices = self.needed(node, 1, "list of indices")?;
        let n = x.dims[along] as usize;
        let places = indices
            .i64()?
            .iter()
            .map(|&i| axis(i, n).map_err(|_| format!("it picks element {i} of {n}")))
            .collect::<Result<Vec<_>, _>>()?;
        if places.is_empty() || places.len() > MOST_PIECES {
            return Err(format!(
                "it picks {} elements; 1 to {MOST_PIECES} are supported",
                places.len()
            ));
        }
        let mut pieces = Vec::new();
        for &place in &places {
            pieces.push(self.part(node, &x, along, (place as u32, 1, 1))?);
        }
        let picked = self.beside_one_another(node, pieces, along)?;
        let mut dims = x.dims[..along].to_vec();
        dims.extend(&indices.dims);
        dims.extend(&x.dims[along + 1..]);
        Ok(picked.reshaped(dims))
    }

    /// Copies along each axis.
    fn repeated(&mut self, node: &Node<'a>, mut x: Value, counts: &[u32]) -> Result<Value, Reason> {
        for (along, &count) in counts.iter().enumerate().filter(|(_, c)| **c != 1) {
            if count == 0 || count as usize > MOST_PIECES {
                return Err(format!(
                    "it repeats an axis {count} times; 1 to {MOST_PIECES} are supported"
                ));
            }
            let pieces = vec![x; count as usize];
            x = self.beside_one_another(node, pieces, along)?;
        }
        Ok(x)
    }

    pub(super) fn tile(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let x = self.any(node, 0)?;
        let counts = self.needed(node, 1, "list of repeats")?;
        let counts: Vec<u32> = counts
            .i64()?
            .iter()
            .map(|&c| c.try_into().unwrap_or(0))
            .collect();
        match counts.len() == x.dims.len() {
            true => self.repeated(node, x, &counts),
            false => Err(format!(
                "it has {} repeats for {} axes",
                counts.len(),
                x.dims.len()
            )),
        }
    }

    pub(super) fn expand(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let x = self.any(node, 0)?;
        let shape = self.needed(node, 1, "shape")?;
        let shape: Vec<u32> = shape
            .i64()?
            .iter()
            .map(|&d| d.try_into().unwrap_or(0))
            .collect();
        let rank = shape.len().max(x.dims.len());
        let extended = |dims: &[u32]| [&vec![1; rank - dims.len()][..], dims].concat();
        let (from, to) = (extended(&x.dims), extended(&shape));
        let mut counts = Vec::new();
        for (&from, &to) in from.iter().zip(&to) {
            counts.push(match (from, to) {
                (from, to) if from == to || to == 1 => 1,
                (1, to) if to > 0 => to,
                _ => return Err(format!("it makes {shape:?} of {:?}", x.dims)),
            });
        }
        self.repeated(node, x.reshaped(from), &counts)
    }

    /// Blocks of channels become blocks of cells, and the other way.
    pub(super) fn depth_and_space(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let x = self.any(node, 0)?;
        let block = u32::try_from(node.int("blocksize", 0)).unwrap_or(0);
        let [n, c, h, w] = x.dims[..] else {
            return Err(format!("its input has {} axes, not 4", x.dims.len()));
        };
        let square = block.checked_mul(block).filter(|&s| s > 0);
        let square = square.ok_or_else(|| format!("its blocksize is {block}"))?;
        if node.operator == "SpaceToDepth" {
            if !h.is_multiple_of(block) || !w.is_multiple_of(block) {
                return Err(format!("its input is {:?} in blocks of {block}", x.dims));
            }
            let (rows, columns) = (h / block, w / block);
            let y = self.seen_as(&x, vec![n, c, rows, block, columns, block])?;
            let y = self.turned(&y, &[0, 3, 5, 1, 2, 4])?;
            return self.seen_as(&y, vec![n, c * square, rows, columns]);
        }
        if !c.is_multiple_of(square) {
            return Err(format!("its input is {:?} in blocks of {block}", x.dims));
        }
        let depth = c / square;
        let (dims, order) = match node.text("mode") {
            Some(b"CRD") => ([n, depth, block, block, h, w], [0, 1, 4, 2, 5, 3]),
            _ => ([n, block, block, depth, h, w], [0, 3, 4, 1, 5, 2]),
        };
        let y = self.seen_as(&x, dims.to_vec())?;
        let y = self.turned(&y, &order)?;
        self.seen_as(&y, vec![n, depth, h * block, w * block])
    }

    /// The same elements, in the file's order, with other dimensions.
    fn seen_as(&mut self, x: &Value, dims: Vec<u32>) -> Result<Value, Reason> {
        let plain = self.plain(x)?;
        Ok(Value::plain(plain, x.dims.clone()).reshaped(dims))
    }
}
