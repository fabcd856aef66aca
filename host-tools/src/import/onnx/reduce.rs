//! Means, sums, maxima and norms over axes.

use super::node::{Node, axis};
use super::pool::whole;
use super::value::Value;
use super::{Importer, Reason};
use crate::graph::Quant;
use foolproof::ops::{Op, ReduceMax, Unary};

impl<'a> Importer<'a> {
    pub(super) fn reduce(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        if node.operator == "ReduceMean" {
            let x = self.value(node, 0)?;
            let target = self.target(node);
            return self.over_axes(node, &x, Kind::Mean(target));
        }
        let x = self.real(node, 0)?;
        let square = |importer: &mut Self| importer.product(node, &x, &x);
        match node.operator {
            "ReduceSum" => self.over_axes(node, &x, Kind::Sum),
            "ReduceMax" => self.over_axes(node, &x, Kind::Max),
            "ReduceMin" => {
                let y = self.scaled(node, &x, -1.0)?;
                let y = self.over_axes(node, &y, Kind::Max)?;
                self.scaled(node, &y, -1.0)
            }
            "ReduceL1" => {
                let y = self.of(node, &x, Unary::Abs)?;
                self.over_axes(node, &y, Kind::Sum)
            }
            "ReduceL2" => {
                let y = square(self)?;
                let y = self.over_axes(node, &y, Kind::Sum)?;
                self.of(node, &y, Unary::Sqrt)
            }
            "ReduceSumSquare" => {
                let y = square(self)?;
                self.over_axes(node, &y, Kind::Sum)
            }
            "ReduceLogSum" => {
                let y = self.over_axes(node, &x, Kind::Sum)?;
                self.of(node, &y, Unary::Log)
            }
            "ReduceLogSumExp" => {
                let y = self.of(node, &x, Unary::Exp)?;
                let y = self.over_axes(node, &y, Kind::Sum)?;
                self.of(node, &y, Unary::Log)
            }
            _ => Err("it is not supported".into()),
        }
    }

    fn over_axes(&mut self, node: &Node<'a>, x: &Value, kind: Kind) -> Result<Value, Reason> {
        let rank = x.dims.len();
        let named = match node.ints("axes") {
            Some(axes) => Some(axes.to_vec()),
            None if node.has_input(1) => {
                Some(self.needed(node, 1, "list of axes")?.i64()?.to_vec())
            }
            None => None,
        };
        let named = named.filter(|axes| !axes.is_empty());
        if named.is_none() && node.int("noop_with_empty_axes", 0) != 0 {
            return Ok(x.clone());
        }
        let mut reduced = vec![named.is_none(); rank];
        for a in named.unwrap_or_default() {
            reduced[axis(a, rank)?] = true;
        }
        self.reduced(node, x, &reduced, node.int("keepdims", 1) != 0, kind)
    }

    /// Over the axes that are marked.
    pub(super) fn reduced(
        &mut self,
        node: &Node<'a>,
        x: &Value,
        reduced: &[bool],
        keep: bool,
        kind: Kind,
    ) -> Result<Value, Reason> {
        let rank = x.dims.len();
        let in_view = |order: &[usize]| {
            let first = order.iter().position(|&a| reduced[a]);
            let first = first.unwrap_or(order.len());
            let count = order[first..].iter().take_while(|&&a| reduced[a]).count();
            let all = order.iter().filter(|&&a| reduced[a]).count();
            (all == count).then_some((first, count))
        };
        let (view, order) = x.view();
        let usable = if view == x.dims {
            in_view(&order)
        } else {
            None
        };
        // in memory: what is kept, what is reduced, what is kept
        let (id, order, first, count) = match usable {
            Some((first, count)) => (x.id, order, first, count),
            None => {
                let mut axes: Vec<usize> = (0..rank).filter(|&a| !reduced[a]).collect();
                let first = axes.len();
                axes.extend((0..rank).filter(|&a| reduced[a]));
                let count = rank - first;
                (self.arranged(x, &axes)?, axes, first, count)
            }
        };
        let product = |axes: &[usize]| axes.iter().map(|&a| x.dims[a]).product::<u32>();
        let (outer, all, inner) = (
            product(&order[..first]),
            product(&order[first..first + count]),
            product(&order[first + count..]),
        );
        let id = match kind {
            Kind::Max => {
                let block = self.shaped(id, &[1, outer, all, inner])?;
                let op = Op::ReduceMax(ReduceMax { axis: 2 });
                self.emit(op, vec![block], self.part_name(node))?
            }
            Kind::Mean(_) | Kind::Sum => {
                let small = &order[first..first + count];
                let h = product(&small[..count.min(1)]);
                let (image, window) = match inner {
                    1 if h == all => ([1, outer, all, 1], (1, all)),
                    _ => ([outer, h, all / h.max(1), inner], (h, all / h.max(1))),
                };
                let image = self.shaped(id, &image)?;
                let pool = whole(window.0 as usize, window.1 as usize)?;
                let (target, sum) = match kind {
                    Kind::Mean(target) => (target, false),
                    _ => (None, true),
                };
                let mean = self.average(image, pool, false, target, self.part_name(node))?;
                match sum {
                    false => mean,
                    true => {
                        let y = Value::plain(mean, vec![outer, inner]);
                        self.scaled(node, &y, all as f32)?.id
                    }
                }
            }
        };
        let mut dims = x.dims.clone();
        for (dim, _) in dims.iter_mut().zip(reduced).filter(|(_, r)| **r) {
            *dim = 1;
        }
        let kept = Value::new(id, dims.clone(), &order);
        if keep {
            return Ok(kept);
        }
        let left = (0..rank)
            .filter(|&a| !reduced[a])
            .map(|a| dims[a])
            .collect();
        Ok(kept.reshaped(left))
    }
}

/// What becomes of the elements.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Their mean; int8 on this grid where they are int8.
    Mean(Option<Quant>),
    Sum,
    Max,
}
