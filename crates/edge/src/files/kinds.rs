//! What a file's name says: its type, whether it is worth a compressed twin, and whether its name changes with its content.

/// Types by extension. Text is UTF-8: everything that makes sites writes it.
const TYPES: &[(&str, &str)] = &[
    ("html", "text/html; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("cjs", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("map", "application/json"),
    ("webmanifest", "application/manifest+json"),
    ("jsonld", "application/ld+json"),
    ("geojson", "application/geo+json"),
    ("xml", "application/xml"),
    ("rss", "application/rss+xml"),
    ("atom", "application/atom+xml"),
    ("xsl", "application/xml"),
    ("txt", "text/plain; charset=utf-8"),
    ("md", "text/markdown; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("ics", "text/calendar; charset=utf-8"),
    ("vtt", "text/vtt; charset=utf-8"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("toml", "application/toml"),
    ("svg", "image/svg+xml"),
    ("wasm", "application/wasm"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
    ("ico", "image/x-icon"),
    ("bmp", "image/bmp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("ttf", "font/ttf"),
    ("otf", "font/otf"),
    ("eot", "application/vnd.ms-fontobject"),
    ("mp3", "audio/mpeg"),
    ("m4a", "audio/mp4"),
    ("ogg", "audio/ogg"),
    ("opus", "audio/ogg"),
    ("wav", "audio/wav"),
    ("flac", "audio/flac"),
    ("mp4", "video/mp4"),
    ("webm", "video/webm"),
    ("ogv", "video/ogg"),
    ("mov", "video/quicktime"),
    ("pdf", "application/pdf"),
    ("zip", "application/zip"),
    ("gz", "application/gzip"),
    ("tgz", "application/gzip"),
    ("br", "application/x-brotli"),
    ("tar", "application/x-tar"),
    ("epub", "application/epub+zip"),
];
const UNKNOWN: &str = "application/octet-stream";
/// Longest extension above, and one more.
const EXTENSION_BYTES_MAX: usize = 12;
/// Digits of a content's hash in a name, as Vite, webpack, esbuild and Rollup write it.
const HASH_BYTES: std::ops::RangeInclusive<usize> = 8..=64;
/// Extensions of what a bundler writes and a page names.
const ASSETS: [&str; 20] = [
    "js", "mjs", "css", "map", "wasm", "svg", "png", "jpg", "jpeg", "gif", "webp", "avif", "ico", "woff",
    "woff2", "ttf", "otf", "mp4", "webm", "json",
];

/// What is known of a file by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) content_type: &'static str,
    /// Whether the name changes with the content: whoever has it needs not ask again.
    pub(super) is_hashed: bool,
}

/// Folders in which bundlers give every file a name with a hash: Vite, Astro, Nuxt.
const BUNDLED: [&str; 3] = ["assets/", "_astro/", "_nuxt/"];
/// Folders whose files never change, by the word of Next and SvelteKit.
const IMMUTABLE: [&str; 2] = ["_next/static/", "_app/immutable/"];

impl Kind {
    /// Looks at the path of a file beneath the site.
    pub(super) fn of(path: &[u8]) -> Self {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let is_in = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder.as_bytes()));
        let Some(dot) = name.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0) else {
            return Self { content_type: UNKNOWN, is_hashed: false };
        };
        let (stem, extension) = (&name[..dot], &name[dot + 1..]);
        let known = |list: &&(&str, &str)| extension.eq_ignore_ascii_case(list.0.as_bytes());
        let content_type = match extension.len() {
            1..EXTENSION_BYTES_MAX => {
                TYPES.iter().find(known).map_or(UNKNOWN, |(_, content_type)| content_type)
            }
            _ => UNKNOWN,
        };
        let is_asset = ASSETS.iter().any(|asset| extension.eq_ignore_ascii_case(asset.as_bytes()));
        let is_hashed = has_hash(stem) || is_in(&IMMUTABLE) || (is_in(&BUNDLED) && has_bundlers_hash(stem));
        Self { content_type, is_hashed: is_asset && is_hashed }
    }

    /// Returns whether a bundler may have put a compressed twin beside the file.
    pub(super) fn may_have_twin(self) -> bool {
        let name = self.content_type.split(';').next().unwrap_or_default();
        name.starts_with("text/")
            || ["json", "xml", "wasm", "yaml", "toml"].iter().any(|end| name.ends_with(end))
            || matches!(name, "image/x-icon" | "font/ttf" | "font/otf" | "application/vnd.ms-fontobject")
    }
}

/// Returns whether a name ends with the hash of a content, behind a dot or a dash: letters and digits that nobody would
/// write so. In doubt it is none: to ask again costs little, to keep the wrong file for a year much.
fn has_hash(stem: &[u8]) -> bool {
    // A hash in base 64 may hold a dash or an underscore itself, so a name without the last eight is looked at, too.
    let after_separator = stem.rsplit(|byte| matches!(byte, b'.' | b'-' | b'_')).next().unwrap_or_default();
    let last_eight = stem.len().checked_sub(8).filter(|at| *at > 0 && matches!(stem[at - 1], b'.' | b'-'));
    let named = stem.len() > after_separator.len() || HASH_BYTES.contains(&stem.len());
    (named && looks_hashed(after_separator)) || last_eight.is_some_and(|at| looks_hashed(&stem[at..]))
}

/// Returns whether the last eight letters look like a hash where one is expected: small and capital ones in turn, more
/// often than in a word of two words.
fn has_bundlers_hash(stem: &[u8]) -> bool {
    let Some(at) = stem.len().checked_sub(*HASH_BYTES.start()).filter(|at| *at > 0) else { return false };
    let word = &stem[at..];
    let is_plain = word.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let humps = word.windows(2).filter(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase());
    matches!(stem[at - 1], b'-' | b'.') && is_plain && humps.count() > 1
}

/// Hexadecimal digits, capitals and digits as of esbuild, or eight of base 64 as of Vite; always with a letter behind a
/// digit, which tells them from `Report2024`.
fn looks_hashed(word: &[u8]) -> bool {
    let is_plain = word.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let digit = word.iter().position(u8::is_ascii_digit);
    let is_mixed = digit.is_some_and(|at| word[at..].iter().any(u8::is_ascii_alphabetic));
    if !HASH_BYTES.contains(&word.len()) || !is_plain || !is_mixed {
        return false;
    }
    let is_hex = word.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
    let is_base32 = word.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    let is_base64 = word.len() == *HASH_BYTES.start()
        && word.iter().any(u8::is_ascii_lowercase)
        && word.iter().any(u8::is_ascii_uppercase);
    is_hex || is_base32 || is_base64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_says_the_type() {
        assert_eq!(Kind::of(b"index.HTML").content_type, "text/html; charset=utf-8");
        assert_eq!(Kind::of(b"a.b.js").content_type, "text/javascript; charset=utf-8");
        for name in [&b"LICENSE"[..], b".js", b"a.", b"a.unknown", b"a.\xff"] {
            assert_eq!(Kind::of(name).content_type, UNKNOWN);
        }
    }

    #[test]
    fn only_a_name_with_a_hash_is_kept_for_good() {
        for name in [
            "index-BfJ2x9aQ.js",
            "main.3f2a1b9c.css",
            "assets/index-moFrwRTN.js",
            "_next/static/abc/_buildManifest.js",
            "main-5XKQ2L7H.js",
            "logo.0123456789abcdef0123.svg",
            "index-a_9X-b2Q.js",
            "5a1b2c3d4e5f6789.js",
        ] {
            assert!(Kind::of(name.as_bytes()).is_hashed, "{name}");
        }
        for name in [
            "index.html",
            "index-BfJ2x9aQ.html",
            "report-20240101.json",
            "main-settings.js",
            "jquery-3.7.1.min.js",
            "hello-World1.js",
            "main.3f2a1b9c.chunk.css.map",
            "index-moFrwRTN.js",
            "assets/logo-MyBanner.png",
            "assets/logo.png",
            "_next/static/page.html",
            "data-Export2024.json",
            "photo-Summer24.jpg",
            "facade-20240101.js",
            "background.png",
            "my-component.js",
            "sw.js",
        ] {
            assert!(!Kind::of(name.as_bytes()).is_hashed, "{name}");
        }
    }
}
