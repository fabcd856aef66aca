//! Making a model fit a board: where an attack would need more RAM than there is, its backward is cut.

use anyhow::{Context, Result, bail};
use foolproof::attack::{Kind, Spec};
use foolproof::link::Places;
use foolproof::memory::Mode;
use foolproof::model::Model;
use foolproof::model::format::ALIGN;

use super::Board;
use crate::graph::{GraphError, Image, from_image, to_image_within};

/// Bytes that a session may have for attacks on a board with `session_ram` bytes: behind the session the chip keeps the input,
/// the crafted input, and what the attacks need (see the firmware's evaluator).
pub fn attack_room(session_ram: usize, model: &Model<'_>, attacks: &[Spec]) -> usize {
    let tables = model.tables();
    let n = model.input_shape().len();
    let input = n * tables.dtype(tables.input()).size();
    let beside = |spec: &Spec| {
        let alone = Places::new(0, input, spec.scratch_len(n, model.classes())).needed();
        match spec.kind {
            // one perturbation for all inputs is kept from one request to the next
            Kind::Universal => alone.max(Places::new(0, input, n).keeping(n).needed()),
            _ => alone,
        }
    };
    let beside = attacks.iter().map(beside).max();
    let beside = beside.unwrap_or_else(|| Places::new(0, input, 0).needed());
    session_ram.saturating_sub(beside) / ALIGN * ALIGN
}

/// The image of `model` that can be attacked on `board`, where it is another one: the same model with its backward cut.
///
/// # Errors
/// No cut makes it fit.
pub fn fitted(board: &Board, model: &Model<'_>, attacks: &[Spec]) -> Result<Option<Image>> {
    let room = attack_room(board.session_ram as usize, model, attacks);
    if attacks.is_empty() || model.required_buffer(Mode::Attack) <= room {
        return Ok(None);
    }
    match to_image_within(&from_image(model), room) {
        Ok(image) => Ok(Some(image)),
        Err(GraphError::AttackBuffer { needed, .. }) => bail!(
            "an attack on this model needs a buffer of {needed} bytes at least, however its backward is cut; the chip has room for {room}, and refuses"
        ),
        Err(error) => Err(error).context("fitting the model to the board"),
    }
}
