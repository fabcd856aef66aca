//! Samples as pictures: a grid of images, a cloud of points, and either over time as an animated GIF.

use super::gan::networks::Form;
use crate::error::{Error, Result};
use crate::report::Picture;

/// Images in a row of a grid.
const ROW: usize = 10;
/// Side of a cloud, pixels.
const CLOUD: usize = 240;

/// Images in -1 to 1, ten in a row with a pixel between them, twice as large; `None` where the shape is no picture's.
pub fn grid(samples: &[f32], form: &Form) -> Option<Picture> {
    let shape: Vec<usize> = form.shape.iter().map(|&d| d as usize).collect();
    let tiles: Vec<Picture> = samples
        .chunks_exact(form.len())
        .map(|x| Picture::of_sample(x, &shape, (-1.0, 1.0)))
        .collect::<Option<_>>()?;
    let first = tiles.first()?;
    let (w, h) = (first.width, first.height);
    let rows = tiles.len().div_ceil(ROW);
    let (width, height) = (2 * (ROW * (w + 1) + 1), 2 * (rows * (h + 1) + 1));
    let mut rgb = vec![60; 3 * width * height];
    for (i, tile) in tiles.iter().enumerate() {
        let (left, top) = (i % ROW * (w + 1) + 1, i / ROW * (h + 1) + 1);
        for y in 0..2 * h {
            for x in 0..2 * w {
                let from = 3 * (y / 2 * w + x / 2);
                let to = 3 * ((2 * top + y) * width + 2 * left + x);
                rgb[to..to + 3].copy_from_slice(&tile.rgb[from..from + 3]);
            }
        }
    }
    Some(Picture { width, height, rgb })
}

/// Points of a plane between `low` and `high`: real ones blue, generated ones orange, both where they meet.
pub fn cloud(real: &[f32], made: &[f32], (low, high): (f32, f32)) -> Picture {
    let mut rgb = vec![255; 3 * CLOUD * CLOUD];
    for (points, colour) in [(real, [31u8, 95, 208]), (made, [194, 65, 12])] {
        for point in points.as_chunks::<2>().0 {
            let place = |v: f32| ((v - low) / (high - low) * CLOUD as f32).floor();
            let (x, y) = (place(point[0]), CLOUD as f32 - 1.0 - place(point[1]));
            let side = 0.0..CLOUD as f32;
            if side.contains(&x) && side.contains(&y) {
                let at = 3 * (y as usize * CLOUD + x as usize);
                rgb[at..at + 3].copy_from_slice(&colour);
            }
        }
    }
    Picture {
        width: CLOUD,
        height: CLOUD,
        rgb,
    }
}

/// Pictures of one size as an animation that repeats; `hundredths` of a second each, the last one longer.
///
/// # Errors
/// The pictures differ in size, or are too large for the format.
pub fn animation(frames: &[Picture], hundredths: u16) -> Result<Vec<u8>> {
    let refuse = |error: &dyn std::fmt::Display| {
        Error::new(
            error,
            "the animation",
            "pictures of one size below 65536 pixels",
        )
    };
    let first = frames.first().ok_or_else(|| refuse(&"no picture"))?;
    let side = |v: usize| u16::try_from(v).map_err(|error| refuse(&error));
    let (width, height) = (side(first.width)?, side(first.height)?);
    let mut out = Vec::new();
    let mut encoder =
        gif::Encoder::new(&mut out, width, height, &[]).map_err(|error| refuse(&error))?;
    encoder
        .set_repeat(gif::Repeat::Infinite)
        .map_err(|error| refuse(&error))?;
    for (i, picture) in frames.iter().enumerate() {
        if (picture.width, picture.height) != (first.width, first.height) {
            return Err(refuse(&"pictures of different sizes"));
        }
        let mut frame = gif::Frame::from_rgb_speed(width, height, &picture.rgb, 10);
        frame.delay = if i + 1 == frames.len() {
            4 * hundredths
        } else {
            hundredths
        };
        encoder
            .write_frame(&frame)
            .map_err(|error| refuse(&error))?;
    }
    drop(encoder);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_holds_the_samples_and_an_animation_the_grids() {
        let form = Form {
            shape: vec![2, 2, 1],
            image: true,
        };
        let picture = grid(&[-1.0, 1.0, 1.0, -1.0], &form).unwrap();
        let at = |x: usize, y: usize| picture.rgb[3 * (y * picture.width + x)];
        assert_eq!([at(2, 2), at(3, 3), at(4, 2), at(1, 1)], [0, 0, 255, 60]);
        let file = animation(&[picture.clone(), picture.clone()], 20).unwrap();
        let mut reader = gif::DecodeOptions::new().read_info(&file[..]).unwrap();
        assert_eq!(usize::from(reader.width()), picture.width);
        assert!(
            reader.next_frame_info().unwrap().is_some()
                && reader.next_frame_info().unwrap().is_some()
        );
        assert!(reader.next_frame_info().unwrap().is_none());
        let flat = Form {
            shape: vec![4],
            image: false,
        };
        assert!(grid(&[0.0; 4], &flat).is_none());
    }

    #[test]
    fn points_outside_are_not_drawn() {
        let picture = cloud(&[0.0, 0.0], &[9.0, 0.0], (-1.0, 1.0));
        let drawn = picture.rgb.chunks(3).filter(|p| *p != [255; 3]).count();
        assert_eq!(drawn, 1);
    }
}
