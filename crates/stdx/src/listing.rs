//! What is in a tree, name by name; its digest names the tree.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

/// A SHA-256.
pub type Hash = [u8; 32];

/// All names of a tree, each with `/` between its parts and none at either end.
pub type Listing = BTreeMap<String, Node>;

/// What a written node has at least: its kind, and the length of its name.
const NODE_MIN_BYTES: usize = 9;

/// What a name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A folder.
    Folder,
    /// A file.
    File {
        /// Its owner may execute it.
        executable: bool,
        /// The hash of what it holds.
        hash: Hash,
    },
    /// A symbolic link.
    Link {
        /// Where it leads, as it is written.
        target: String,
    },
}

/// Names a tree by names, modes, kinds and contents, of nodes that come in the order of their names.
pub fn digest<'a>(nodes: impl IntoIterator<Item = (&'a String, &'a Node)>) -> Hash {
    let mut hasher = Sha256::new();
    let mut line = Vec::new();
    for (name, node) in nodes {
        let (kind, content) = match node {
            Node::Folder => ("d 755", [0; 32]),
            Node::File { executable, hash } => (if *executable { "f 755" } else { "f 644" }, *hash),
            Node::Link { target } => ("l 777", Sha256::digest(target.as_bytes()).into()),
        };
        line.clear();
        line.extend_from_slice(kind.as_bytes());
        line.extend_from_slice(format!(" {} ", name.len()).as_bytes());
        line.extend_from_slice(name.as_bytes());
        line.push(b'\n');
        line.extend_from_slice(&content);
        hasher.update(&line);
    }
    hasher.finalize().into()
}

/// Writes a hash as 64 letters.
pub fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes nodes down that come in the order of their names. Texts have their length before them, so that any name can be
/// read back.
pub fn encode<'a>(
    nodes: impl IntoIterator<IntoIter: ExactSizeIterator<Item = (&'a String, &'a Node)>>,
    to: &mut Vec<u8>,
) {
    let nodes = nodes.into_iter();
    to.extend((nodes.len() as u64).to_le_bytes());
    for (name, node) in nodes {
        match node {
            Node::Folder => to.push(b'd'),
            Node::File { executable, hash } => {
                to.push(if *executable { b'x' } else { b'f' });
                to.extend(hash);
            }
            Node::Link { target } => {
                to.push(b'l');
                encode_text(target, to);
            }
        }
        encode_text(name, to);
    }
}

fn encode_text(text: &str, to: &mut Vec<u8>) {
    to.extend((text.len() as u64).to_le_bytes());
    to.extend(text.as_bytes());
}

/// Reads nodes, in the order of their names, from the front of `from`, which is what follows them afterwards. None when they
/// were not written by [`encode`].
pub fn decode(from: &mut &[u8]) -> Option<Vec<(String, Node)>> {
    let count = usize::try_from(decode_number(from)?).ok()?;
    let mut nodes: Vec<(String, Node)> = Vec::with_capacity(count.min(from.len() / NODE_MIN_BYTES));
    for _ in 0..count {
        let (kind, rest) = from.split_first()?;
        *from = rest;
        let node = match kind {
            b'd' => Node::Folder,
            b'f' | b'x' => {
                let (hash, rest) = from.split_first_chunk()?;
                *from = rest;
                Node::File { executable: *kind == b'x', hash: *hash }
            }
            b'l' => Node::Link { target: decode_text(from)? },
            _ => return None,
        };
        let name = decode_text(from)?;
        if nodes.last().is_some_and(|(last, _)| *last >= name) {
            return None;
        }
        nodes.push((name, node));
    }
    Some(nodes)
}

/// Reads a number of eight bytes from the front.
pub fn decode_number(from: &mut &[u8]) -> Option<u64> {
    let (number, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(u64::from_le_bytes(*number))
}

fn decode_text(from: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(decode_number(from)?).ok()?;
    let (text, rest) = from.split_at_checked(length)?;
    *from = rest;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing() -> Listing {
        let file = |executable| Node::File { executable, hash: [7; 32] };
        let nodes = [
            ("a", Node::Folder),
            ("a/b\nc", file(true)),
            ("é", file(false)),
            ("l", Node::Link { target: "a/b\nc".into() }),
        ];
        nodes.map(|(name, node)| (name.to_owned(), node)).into()
    }

    #[test]
    fn a_listing_is_read_as_it_was_written_and_no_torn_one_is() {
        let mut bytes = Vec::new();
        let all: Vec<_> = listing().into_iter().collect();
        encode(all.iter().map(|(name, node)| (name, node)), &mut bytes);
        bytes.extend(b"more");
        let mut rest = &bytes[..];
        assert_eq!((decode(&mut rest), rest), (Some(all.clone()), &b"more"[..]));
        for end in 0..bytes.len() - 4 {
            assert_eq!(decode(&mut &bytes[..end]), None, "{end}");
        }
        for wrong in [[&all[1], &all[0]], [&all[0], &all[0]]] {
            let mut bytes = Vec::new();
            encode(wrong.map(|(name, node)| (name, node)), &mut bytes);
            assert_eq!(decode(&mut &bytes[..]), None, "out of order");
        }
        let mut huge = u64::MAX.to_le_bytes().to_vec();
        huge.extend(b"d");
        huge.extend(u64::MAX.to_le_bytes());
        assert_eq!(decode(&mut &huge[..]), None);
    }

    #[test]
    fn names_kinds_modes_and_contents_are_in_the_digest() {
        let plain = hex(&digest(&listing()));
        assert_eq!(plain.len(), 64);
        let changes: [fn(&mut Listing); 5] = [
            |listing| drop(listing.remove("é")),
            |listing| drop(listing.insert("é".into(), Node::Folder)),
            |listing| drop(listing.insert("é".into(), Node::File { executable: true, hash: [7; 32] })),
            |listing| drop(listing.insert("é".into(), Node::File { executable: false, hash: [8; 32] })),
            |listing| drop(listing.insert("l".into(), Node::Link { target: "a".into() })),
        ];
        for change in changes {
            let mut other = listing();
            change(&mut other);
            assert_ne!(hex(&digest(&other)), plain);
        }
    }
}
