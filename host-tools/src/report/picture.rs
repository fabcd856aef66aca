//! Samples as pictures: small PNG files inside the page, one pixel for one value.

use base64::Engine;

/// A picture of at most a few thousand pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Red, green, blue, row after row.
    pub rgb: Vec<u8>,
}

/// Height, width and channels of a sample of this shape, where it can be shown as a picture: `[H, W]`, `[H, W, 1]` or
/// `[H, W, 3]`, after leading axes of 1.
fn size(shape: &[usize]) -> Option<(usize, usize, usize)> {
    let mut shape = shape;
    while shape.len() > 3 && shape[0] == 1 {
        shape = &shape[1..];
    }
    let (height, width, channels) = match *shape {
        [height, width] => (height, width, 1),
        [height, width, channels @ (1 | 3)] => (height, width, channels),
        _ => return None,
    };
    ((1..=512).contains(&height) && (1..=512).contains(&width)).then_some((height, width, channels))
}

impl Picture {
    /// A sample whose values lie in `low..=high`. `None` where its shape is no picture's.
    pub fn of_sample(values: &[f32], shape: &[usize], (low, high): (f32, f32)) -> Option<Self> {
        let (height, width, channels) = size(shape)?;
        if values.len() != height * width * channels {
            return None;
        }
        let level =
            |value: f32| (255.0 * ((value - low) / (high - low)).clamp(0.0, 1.0)).round() as u8;
        let rgb = values
            .chunks_exact(channels)
            .flat_map(|pixel| match *pixel {
                [red, green, blue] => [level(red), level(green), level(blue)],
                _ => [level(pixel[0]); 3],
            })
            .collect();
        Some(Self { width, height, rgb })
    }

    /// A change of the values, from `-largest` (blue) over 0 (white) to `largest` (red). Channels are averaged.
    pub fn of_change(change: &[f32], shape: &[usize], largest: f32) -> Option<Self> {
        let (height, width, channels) = size(shape)?;
        if change.len() != height * width * channels {
            return None;
        }
        let rgb = change
            .chunks_exact(channels)
            .flat_map(|pixel| {
                let mean = pixel.iter().sum::<f32>() / channels as f32;
                diverging(if largest > 0.0 { mean / largest } else { 0.0 })
            })
            .collect();
        Some(Self { width, height, rgb })
    }

    /// The picture as a PNG file.
    ///
    /// # Errors
    /// The pixels do not fill the picture.
    pub fn png(&self) -> Result<Vec<u8>, png::EncodingError> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb)?;
        writer.finish()?;
        Ok(file)
    }

    /// A PNG file that [`Picture::png`] wrote.
    ///
    /// # Errors
    /// It is damaged, or is another kind of PNG.
    pub fn from_png(bytes: &[u8]) -> Result<Picture, png::DecodingError> {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info()?;
        let (width, height) = (reader.info().width as usize, reader.info().height as usize);
        let mut rgb = vec![0; reader.output_buffer_size().unwrap_or(0)];
        reader.next_frame(&mut rgb)?;
        Ok(Picture { width, height, rgb })
    }

    /// The picture as a `data:` address of a PNG file.
    pub fn data_uri(&self) -> String {
        // Writing to memory fails only where the pixels do not fill the picture: then there is none to show.
        match self.png() {
            Ok(file) => format!(
                "data:image/png;base64,{}",
                base64::engine::general_purpose::STANDARD.encode(&file)
            ),
            Err(_) => "data:,".into(),
        }
    }
}

/// -1 blue, 0 nearly white, 1 red.
fn diverging(value: f32) -> [u8; 3] {
    const MIDDLE: [f32; 3] = [247.0, 247.0, 247.0];
    let end = if value < 0.0 {
        [33.0, 102.0, 172.0]
    } else {
        [178.0, 24.0, 43.0]
    };
    let amount = value.abs().min(1.0);
    std::array::from_fn(|i| (MIDDLE[i] + amount * (end[i] - MIDDLE[i])).round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_have_the_samples_shape_and_values() {
        let grey = Picture::of_sample(&[0.0, 0.5, 1.0, 2.0], &[1, 2, 2, 1], (0.0, 1.0)).unwrap();
        assert_eq!((grey.width, grey.height), (2, 2));
        assert_eq!(
            grey.rgb.chunks(3).map(|p| p[0]).collect::<Vec<_>>(),
            [0, 128, 255, 255]
        );
        let rgb = Picture::of_sample(&[0.0, 1.0, 2.0], &[1, 1, 3], (0.0, 2.0)).unwrap();
        assert_eq!(rgb.rgb, [0, 128, 255]);
        let change = Picture::of_change(&[-1.0, 0.0, 1.0], &[1, 3], 1.0).unwrap();
        assert_eq!(change.rgb, [33, 102, 172, 247, 247, 247, 178, 24, 43]);
        assert!(Picture::of_sample(&[0.0; 10], &[10], (0.0, 1.0)).is_none());
        assert!(Picture::of_sample(&[0.0; 3], &[2, 2], (0.0, 1.0)).is_none());
    }

    #[test]
    fn the_png_holds_the_pixels() {
        let picture = Picture::of_sample(&[0.0, 1.0], &[1, 2], (0.0, 1.0)).unwrap();
        let uri = picture.data_uri();
        let file = base64::engine::general_purpose::STANDARD
            .decode(uri.split_once(',').unwrap().1)
            .unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, picture.rgb);
    }
}
