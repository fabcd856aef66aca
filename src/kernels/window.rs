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
    /// Of a fully connected layer, `[samples, depth]` to `[samples, outputs]`: a convolution of single pixels, of which each sample is one.
    #[cfg(foolproof_simd)]
    pub(crate) fn of_dense(depth: usize, samples: usize, outputs: usize) -> Window {
        Window {
            batch: 1,
            input: [1, samples],
            in_channels: depth,
            output: [1, samples],
            out_channels: outputs,
            kernel: [1, 1],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [0, 0],
        }
    }

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

    /// The cells of a window of sample `n`, as runs that are contiguous both in the input and in the window.
    #[inline(always)]
    pub fn runs(&self, n: usize, rows: Inside, columns: Inside) -> Runs<'_> {
        let joined = self.dilation[1] == 1;
        self.cells_in(n, rows, columns, if joined { columns.count } else { 1 })
    }

    /// The cells of a window of sample `n`, one by one.
    #[inline(always)]
    pub fn cells(&self, n: usize, rows: Inside, columns: Inside) -> Runs<'_> {
        self.cells_in(n, rows, columns, 1)
    }

    #[inline(always)]
    fn cells_in(&self, n: usize, rows: Inside, columns: Inside, count: usize) -> Runs<'_> {
        Runs {
            window: self,
            first_row: n * self.input[0] + rows.at,
            rows,
            columns,
            count,
            i: if columns.count == 0 { rows.count } else { 0 },
            j: 0,
        }
    }

    /// Elements of one filter of a convolution.
    #[inline(always)]
    pub fn filter_len(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.in_channels
    }

    /// Every window, in order of the output: its sample and its cells inside, rows and columns.
    #[inline(always)]
    pub fn windows(&self) -> Windows<'_> {
        Windows {
            window: self,
            n: 0,
            oy: 0,
            ox: 0,
            rows: self.inside(0, 0),
        }
    }
}

/// Consecutive cells of a window.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Number of the first one's pixel in the input, samples counted in.
    pub pixel: usize,
    /// Number of the first one in the window.
    pub cell: usize,
    /// How many.
    pub count: usize,
}

// Iterators, not callbacks: the loop body then belongs to the kernel itself and is compiled for the CPU
// features of that kernel.

/// See [`Window::runs`].
#[derive(Clone, Debug)]
pub struct Runs<'a> {
    window: &'a Window,
    first_row: usize,
    rows: Inside,
    columns: Inside,
    count: usize,
    i: usize,
    j: usize,
}

impl Iterator for Runs<'_> {
    type Item = Run;

    #[inline(always)]
    fn next(&mut self) -> Option<Run> {
        if self.i == self.rows.count {
            return None;
        }
        let g = self.window;
        let row = self.first_row + self.i * g.dilation[0];
        let run = Run {
            pixel: row * g.input[1] + self.columns.at + self.j * g.dilation[1],
            cell: (self.rows.first + self.i) * g.kernel[1] + self.columns.first + self.j,
            count: self.count,
        };
        self.j += self.count;
        if self.j >= self.columns.count {
            (self.i, self.j) = (self.i + 1, 0);
        }
        Some(run)
    }
}

/// See [`Window::windows`].
#[derive(Clone, Debug)]
pub struct Windows<'a> {
    window: &'a Window,
    n: usize,
    oy: usize,
    ox: usize,
    rows: Inside,
}

impl Iterator for Windows<'_> {
    type Item = (usize, Inside, Inside);

    #[inline(always)]
    fn next(&mut self) -> Option<(usize, Inside, Inside)> {
        let g = self.window;
        if self.n == g.batch {
            return None;
        }
        let item = (self.n, self.rows, g.inside(1, self.ox));
        self.ox += 1;
        if self.ox == g.output[1] {
            (self.ox, self.oy) = (0, self.oy + 1);
            if self.oy == g.output[0] {
                (self.oy, self.n) = (0, self.n + 1);
            }
            self.rows = g.inside(0, self.oy);
        }
        Some(item)
    }
}
