//! Memory plans: where every slot lies, and how backward is cut where it would not fit.

use foolproof::memory::{self, Mode, Pass, Request, Role};
use foolproof::model::Tables;
use foolproof::model::format::{MAX_PASSES, PassRecord, PassSpan, Span, TensorRole};
use rand_core::Rng;
use std::collections::{BTreeMap, HashMap};
use zerocopy::little_endian::{U16, U32};

/// A slot: its tensor, and its role's code.
type Key = (usize, u8);

/// The spans of one mode and the bytes that they need.
pub(super) struct Plan {
    pub spans: HashMap<Key, Span>,
    pub total: usize,
}

impl Plan {
    pub fn make(tables: &Tables<'_>, mode: Mode) -> Plan {
        let whole = Pass {
            start: 0,
            end: tables.op_count(),
        };
        let laid = Laid::out(tables, mode, &[whole]);
        let spans = laid.passes.into_iter().flatten().collect();
        Plan {
            spans,
            total: laid.total,
        }
    }
}

/// How Attack mode uses its buffer.
pub(super) enum AttackPlan {
    /// One pass.
    Plain(Plan),
    /// Several.
    Cut(Passes),
}

/// Passes as an image stores them, in the order of operators.
#[derive(Default)]
pub(super) struct Passes {
    pub records: Vec<PassRecord>,
    pub spans: Vec<PassSpan>,
    pub total: usize,
}

impl AttackPlan {
    /// A plan of at most `limit` bytes, with as little recomputed work as the search finds.
    ///
    /// # Errors
    /// The smallest buffer that the search found, where that is larger.
    pub fn make(tables: &Tables<'_>, limit: usize) -> Result<AttackPlan, usize> {
        let plain = Plan::make(tables, Mode::Attack);
        if plain.total <= limit {
            return Ok(AttackPlan::Plain(plain));
        }
        // what is computed again would begin with another state
        if (0..tables.tensor_count()).any(|t| tables.role(t) == TensorRole::State) {
            return Err(plain.total);
        }
        let cuts = Cuts::of(tables);
        // slots do not always pack without a gap: then the search is told to aim lower
        let mut smallest = plain.total;
        let mut aim = limit;
        while let Some(passes) = cuts.cheapest(aim) {
            let laid = Laid::out(tables, Mode::Attack, &passes);
            if laid.total <= limit {
                return Ok(AttackPlan::Cut(stored(&passes, laid)));
            }
            smallest = smallest.min(laid.total);
            aim -= (laid.total - limit).min(aim).max(1);
        }
        if let Some(passes) = cuts.cheapest(cuts.floor()) {
            let laid = Laid::out(tables, Mode::Attack, &passes);
            if laid.total <= limit {
                return Ok(AttackPlan::Cut(stored(&passes, laid)));
            }
            smallest = smallest.min(laid.total);
        }
        Err(smallest)
    }
}

fn stored(passes: &[Pass], laid: Laid) -> Passes {
    let mut records = Vec::new();
    let mut spans = Vec::new();
    for (pass, slots) in passes.iter().zip(&laid.passes) {
        // a BTreeMap: in the order of tensors and roles, as the image has them
        spans.extend(slots.iter().map(|(&(tensor, role), &span)| PassSpan {
            tensor: U16::new(tensor as u16),
            role,
            reserved: 0,
            span,
        }));
        records.push(PassRecord {
            start: U16::new(pass.start as u16),
            end: U16::new(pass.end as u16),
            spans_end: U32::new(spans.len() as u32),
        });
    }
    Passes {
        records,
        spans,
        total: laid.total,
    }
}

/// The life of a slot within a pass.
struct Life {
    role: Role,
    first: u16,
    last: u16,
}

fn lives(tables: &Tables<'_>, mode: Mode, pass: Pass) -> BTreeMap<Key, Life> {
    let mut lives: BTreeMap<Key, Life> = BTreeMap::new();
    memory::uses(tables, mode, pass, &mut |t, role, time| {
        let life = lives.entry((t, role as u8)).or_insert(Life {
            role,
            first: time,
            last: time,
        });
        life.first = life.first.min(time);
        life.last = life.last.max(time);
    });
    lives
}

/// Slots with their places, pass by pass in the order of operators.
struct Laid {
    passes: Vec<BTreeMap<Key, Span>>,
    total: usize,
}

impl Laid {
    /// All passes are laid out on one line of time, the one that runs first in front. What one leaves to the next is one
    /// slot with a long life.
    fn out(tables: &Tables<'_>, mode: Mode, passes: &[Pass]) -> Laid {
        let close = 2 * tables.op_count() as u16;
        let length = u32::from(close) + 1;
        let mut wanted: Vec<Request> = Vec::new();
        let mut kept: HashMap<Key, usize> = HashMap::new();
        let mut slots: Vec<Vec<(Key, usize, Life)>> = Vec::new();
        for (turn, &pass) in passes.iter().rev().enumerate() {
            let from = turn as u32 * length;
            let mut keeps = HashMap::new();
            let mut of_pass = Vec::new();
            for (key, life) in lives(tables, mode, pass) {
                let last = (from + u32::from(life.last)) as u16;
                let index = match kept.get(&key) {
                    Some(&index) => {
                        wanted[index].last = last;
                        index
                    }
                    None => {
                        wanted.push(Request {
                            size: memory::slot_bytes(tables, key.0, life.role, mode),
                            first: (from + u32::from(life.first)) as u16,
                            last,
                            offset: 0,
                        });
                        wanted.len() - 1
                    }
                };
                if life.last == close {
                    keeps.insert(key, index);
                }
                of_pass.push((key, index, life));
            }
            kept = keeps;
            slots.push(of_pass);
        }
        let (placed, total) = best_placement(&wanted);
        let spans = |of_pass: Vec<(Key, usize, Life)>| {
            let span = |(key, index, life): (Key, usize, Life)| {
                let span = Span {
                    offset: U32::new(placed[index].offset as u32),
                    first: U16::new(life.first),
                    last: U16::new(life.last),
                };
                (key, span)
            };
            of_pass.into_iter().map(span).collect()
        };
        Laid {
            passes: slots.into_iter().rev().map(spans).collect(),
            total,
        }
    }
}

/// Operators at which backward may be cut, and what each piece would need.
struct Cuts {
    /// Ascending, from 0 to the number of operators.
    at: Vec<usize>,
    /// `alive[i][j - i - 1]`: the bytes alive at the busiest moment of the pass from cut `i` to cut `j`.
    alive: Vec<Vec<usize>>,
    /// `work[j]`: what running everything before cut `j` again costs.
    work: Vec<u64>,
    /// Most passes; times of all of them must fit 16 bits.
    most: usize,
}

/// Most places that are looked at.
const PLACES: usize = 64;

impl Cuts {
    fn of(tables: &Tables<'_>) -> Cuts {
        let n = tables.op_count();
        let stride = n.div_ceil(PLACES);
        let mut at: Vec<usize> = (0..n).step_by(stride).collect();
        at.push(n);
        let alive = (0..at.len())
            .map(|i| {
                let piece = |j: usize| {
                    let (start, end) = (at[i], at[j]);
                    busiest(tables, Pass { start, end })
                };
                (i + 1..at.len()).map(piece).collect()
            })
            .collect();
        // operators without multiplications cost something too
        let work = |&end: &usize| (0..end).map(|k| 1 + tables.macs(k)).sum();
        Cuts {
            work: at.iter().map(work).collect(),
            alive,
            most: MAX_PASSES.min(usize::from(u16::MAX) / (2 * n + 1)),
            at,
        }
    }

    /// What the smallest pieces need.
    fn floor(&self) -> usize {
        (0..self.at.len() - 1)
            .map(|i| self.alive[i][0])
            .max()
            .unwrap_or(0)
    }

    /// The passes, none of which has more than `limit` bytes alive at once, that recompute least; `None` where there are none.
    fn cheapest(&self, limit: usize) -> Option<Vec<Pass>> {
        let ends = self.at.len();
        // best[count][j]: the least work of `count` passes up to cut j, and where the last of them starts
        let mut best: Vec<Vec<Option<(u64, usize)>>> = vec![vec![None; ends]; self.most + 1];
        best[0][0] = Some((0, 0));
        for count in 1..=self.most {
            for j in 1..ends {
                let again = if j + 1 == ends { 0 } else { self.work[j] };
                best[count][j] = (0..j)
                    .filter(|&i| self.alive[i][j - i - 1] <= limit)
                    .filter_map(|i| Some((best[count - 1][i]?.0 + again, i)))
                    .min();
            }
        }
        let (_, mut count) = (1..=self.most)
            .filter_map(|count| Some((best[count][ends - 1]?.0, count)))
            .min()?;
        let mut passes = Vec::new();
        let mut j = ends - 1;
        while count > 0 {
            let (_, i) = best[count][j]?;
            passes.push(Pass {
                start: self.at[i],
                end: self.at[j],
            });
            (j, count) = (i, count - 1);
        }
        passes.reverse();
        Some(passes)
    }
}

/// The bytes alive at the busiest moment of a pass of Attack mode.
fn busiest(tables: &Tables<'_>, pass: Pass) -> usize {
    let mut change = vec![0_i64; 2 * tables.op_count() + 2];
    for ((tensor, _), life) in lives(tables, Mode::Attack, pass) {
        let bytes = memory::slot_bytes(tables, tensor, life.role, Mode::Attack) as i64;
        change[usize::from(life.first)] += bytes;
        change[usize::from(life.last) + 1] -= bytes;
    }
    let mut alive = 0;
    let sums = change.into_iter().map(|change| {
        alive += change;
        alive
    });
    sums.max().unwrap_or(0) as usize
}

/// Requests placed in some order.
struct Placement {
    order: Vec<usize>,
    placed: Vec<Request>,
    total: usize,
}

impl Placement {
    fn of(wanted: &[Request], order: Vec<usize>) -> Placement {
        let mut requests: Vec<Request> = order.iter().map(|&i| wanted[i]).collect();
        let total = memory::place(&mut requests);
        let mut placed = wanted.to_vec();
        for (&i, r) in order.iter().zip(&requests) {
            placed[i] = *r;
        }
        Placement {
            order,
            placed,
            total,
        }
    }
}

/// How many small changes to the best order are tried, and with how many requests at most; with more there are fewer tries.
const PLACEMENT_TRIES: usize = 400;
const PLACEMENT_REQUESTS: usize = 400;

/// The smallest of several placements: by size, by life, by both, then small changes to the best order by a
/// fixed sequence. No order is best for every graph; each try costs microseconds.
fn best_placement(wanted: &[Request]) -> (Vec<Request>, usize) {
    let life = |r: &Request| u64::from(r.last - r.first) + 1;
    let size = |r: &Request| r.size as u64;
    let sorted = |key: &dyn Fn(&Request) -> u64| {
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(key(&wanted[i])));
        Placement::of(wanted, order)
    };
    let mut best = sorted(&|r| size(r) << 16 | life(r));
    let mut offer = |other: Placement| {
        if other.total < best.total {
            best = other;
        }
        (best.total, best.order.clone())
    };
    offer(sorted(&|r| life(r) << 32 | size(r)));
    offer(sorted(&|r| size(r) * life(r)));
    let (mut total, mut order) = offer(sorted(&|r| u64::from(u16::MAX - r.first) << 32 | size(r)));
    // nothing can be smaller than what is alive at the busiest moment
    let alive_at = |time: u16| -> usize {
        let alive = wanted.iter().filter(|r| r.first <= time && time <= r.last);
        alive.map(|r| r.size).sum()
    };
    let bound = wanted.iter().map(|r| alive_at(r.first)).max().unwrap_or(0);
    let mut random = foolproof::attack::rng(0, 0);
    let tries = match wanted.len() {
        len @ PLACEMENT_REQUESTS.. => PLACEMENT_TRIES * PLACEMENT_REQUESTS.pow(2) / len.pow(2),
        _ => PLACEMENT_TRIES,
    };
    for _ in 0..tries {
        if total == bound {
            break;
        }
        let from = random.next_u32() as usize % order.len();
        let moved = order.remove(from);
        let to = random.next_u32() as usize % (order.len() + 1);
        order.insert(to, moved);
        (total, order) = offer(Placement::of(wanted, order));
    }
    (best.placed, best.total)
}
