//! Windows that slide over an image: which cells of a window lie inside the input.

/// Sizes of a sliding-window operator over `[N, H, W, C]`. Whoever makes one has checked that
/// `out = (in + padding - reach) / stride + 1` along both axes, that `in + padding` stays below 2^30, and that
/// the slices handed over together with it have the lengths that these numbers give.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Samples.
    pub batch: usize,
    /// Rows, columns of the input.
    pub input: [usize; 2],
    /// Channels of the input.
    pub in_channels: usize,
    /// Rows, columns of the output.
    pub output: [usize; 2],
    /// Channels of the output.
    pub out_channels: usize,
    /// Rows, columns of the window.
    pub kernel: [usize; 2],
    /// Rows, columns between windows.
    pub stride: [usize; 2],
    /// Rows, columns between cells.
    pub dilation: [usize; 2],
    /// Rows above, columns to the left.
    pub padding: [usize; 2],
}

/// The cells of a window, along one axis, that lie inside the input: cells `first..first + count`, the first of
/// them at input position `at`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inside {
    /// First cell inside.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// Where the first one lies.
    pub at: usize,
}

impl Window {
    /// The cells inside, along axis 0 (rows) or 1 (columns), of the window at output position `out`.
    #[inline(always)]
    pub fn inside(&self, axis: usize, out: usize) -> Inside {
        let (input, kernel) = (self.input[axis] as isize, self.kernel[axis] as isize);
        let dilation = self.dilation[axis] as isize;
        let origin = (out * self.stride[axis]) as isize - self.padding[axis] as isize;
        // Divisions only at the edges: small chips have no divider.
        let first = if origin >= 0 {
            0
        } else if dilation == 1 {
            -origin
        } else {
            (-origin + dilation - 1) / dilation
        };
        let end = if origin + (kernel - 1) * dilation < input {
            kernel
        } else if dilation == 1 {
            input - origin
        } else {
            (input - origin + dilation - 1) / dilation
        };
        if first >= end || first >= kernel {
            return Inside::default();
        }
        Inside {
            first: first as usize,
            count: (end - first) as usize,
            at: (origin + first * dilation) as usize,
        }
    }

    /// Calls `f(x, w, len)` for every run of `len` elements of the window that is contiguous both in the input
    /// (from element `x`) and in one filter `[kh, kw, C]` (from element `w`), for sample `n`.
    #[inline(always)]
    pub fn runs(
        &self,
        n: usize,
        rows: Inside,
        columns: Inside,
        mut f: impl FnMut(usize, usize, usize),
    ) {
        let c = self.in_channels;
        for i in 0..rows.count {
            let row = n * self.input[0] + rows.at + i * self.dilation[0];
            let x = (row * self.input[1] + columns.at) * c;
            let w = ((rows.first + i) * self.kernel[1] + columns.first) * c;
            if self.dilation[1] == 1 {
                f(x, w, columns.count * c);
            } else {
                for j in 0..columns.count {
                    f(x + j * self.dilation[1] * c, w + j * c, c);
                }
            }
        }
    }

    /// Elements of one filter of a convolution.
    #[inline(always)]
    pub fn filter_len(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.in_channels
    }

    /// Calls `f(n, oy, ox, rows, columns)` for every window, in order of the output.
    #[inline(always)]
    pub fn windows(&self, mut f: impl FnMut(usize, Inside, Inside)) {
        for n in 0..self.batch {
            for oy in 0..self.output[0] {
                let rows = self.inside(0, oy);
                for ox in 0..self.output[1] {
                    f(n, rows, self.inside(1, ox));
                }
            }
        }
    }
}
