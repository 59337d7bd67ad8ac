//! Checks of the house itself: which crate may name which, who owns which outside world, the shape of files, words, and
//! what the documents claim. All of it is in `tests/`; this file only gives the package its target.
