//! Classes by score.

/// All classes but one, the highest score first; of equals the first.
pub(super) fn others(scores: &[f32], class: usize) -> Vec<usize> {
    let mut others: Vec<usize> = (0..scores.len()).filter(|&c| c != class).collect();
    others.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    others
}
