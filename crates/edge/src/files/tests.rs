//! What the folder gives out: hostile links, pipes and names are not there.
