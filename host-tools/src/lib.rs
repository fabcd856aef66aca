//! The host side of foolproof.
