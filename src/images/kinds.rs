//! The names of formats that are not read, by the first bytes of a file and by its extension.

use std::ffi::OsStr;
use std::path::Path;

/// As many bytes of a file as the signatures reach.
pub const SIGNATURE: usize = 512;

/// What a file holds that is no image of a readable format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Picture,
    CameraFile,
    Video,
    Archive,
    Numbers,
    Document,
    Pointer,
}

use Content::{Archive, CameraFile, Document, Numbers, Picture, Pointer, Video};

/// A format that is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its name, such as HEIC.
    pub name: &'static str,
    content: Content,
}

impl Kind {
    /// What can be done with the file.
    pub fn remedy(self) -> &'static str {
        match self.content {
            Picture | CameraFile => "convert it to JPEG or PNG",
            Video => "save its frames as JPEG or PNG",
            Archive => "unpack it",
            Numbers => "save its images as PNG, or as an array `input` [N,C,H,W] in an .npz file",
            Document => "export it as JPEG or PNG",
            Pointer => "fetch the file itself with git lfs pull",
        }
    }

    /// Whether it is a tar archive, which is not compressed.
    pub fn is_tar(self) -> bool {
        self.name == TAR
    }

    /// Whether people take the file for one of their pictures.
    pub fn is_pictorial(self) -> bool {
        matches!(self.content, Picture | CameraFile | Video)
    }
}

const TAR: &str = "a tar archive";

/// Names, contents, and the places and bytes of signatures. Earlier rows come first.
#[rustfmt::skip]
const SIGNATURES: &[(&str, Content, usize, &[u8])] = &[
    ("JPEG 2000", Picture, 4, b"jP  \r\n\x87\n"),
    ("JPEG 2000", Picture, 0, b"\xff\x4f\xff\x51"),
    ("JPEG XL", Picture, 4, b"JXL \r\n\x87\n"),
    ("JPEG XL", Picture, 0, b"\xff\x0a"),
    ("JPEG XR", Picture, 0, b"II\xbc"),
    ("JPEG-LS", Picture, 0, b"\xff\xd8\xff\xf7"),
    ("DICOM", Picture, 128, b"DICM"),
    ("a Photoshop file (PSD)", Picture, 0, b"8BPS"),
    ("OpenEXR", Picture, 0, b"\x76\x2f\x31\x01"),
    ("Radiance HDR", Picture, 0, b"#?RADIANCE"),
    ("Radiance HDR", Picture, 0, b"#?RGBE"),
    ("DDS", Picture, 0, b"DDS "),
    ("KTX", Picture, 0, b"\xabKTX "),
    ("farbfeld", Picture, 0, b"farbfeld"),
    ("FITS", Picture, 0, b"SIMPLE  ="),
    ("a GIMP file (XCF)", Picture, 0, b"gimp xcf"),
    ("BPG", Picture, 0, b"BPG\xfb"),
    ("FLIF", Picture, 0, b"FLIF"),
    ("ICNS", Picture, 0, b"icns"),
    ("PCX", Picture, 0, b"\x0a\x05\x01\x08"),
    ("SGI", Picture, 0, b"\x01\xda\x00\x01"),
    ("SGI", Picture, 0, b"\x01\xda\x01\x01"),
    ("a Sun raster file", Picture, 0, b"\x59\xa6\x6a\x95"),
    ("XPM", Picture, 0, b"/* XPM"),
    ("EMF", Picture, 40, b" EMF"),
    ("WMF", Picture, 0, b"\xd7\xcd\xc6\x9a"),
    ("DjVu", Document, 0, b"AT&TFORM"),
    ("a Zeiss CZI file", Picture, 0, b"ZISRAWFILE"),
    ("NRRD", Picture, 0, b"NRRD000"),
    ("NIfTI", Picture, 344, b"n+1\0"),
    ("NIfTI", Picture, 344, b"ni1\0"),
    ("a raw camera file (CR2)", CameraFile, 8, b"CR\x02"),
    ("a raw camera file (RAF)", CameraFile, 0, b"FUJIFILMCCD-RAW"),
    ("a raw camera file (RW2)", CameraFile, 0, b"IIU\0"),
    ("a raw camera file (ORF)", CameraFile, 0, b"IIRO"),
    ("a raw camera file (ORF)", CameraFile, 0, b"IIRS"),
    ("a raw camera file (ORF)", CameraFile, 0, b"MMOR"),
    ("a raw camera file (X3F)", CameraFile, 0, b"FOVb"),
    ("a raw camera file (CRW)", CameraFile, 6, b"HEAPCCDR"),
    ("a raw camera file (MRW)", CameraFile, 0, b"\0MRM"),
    ("a video (AVI)", Video, 8, b"AVI "),
    ("a video (Matroska or WebM)", Video, 0, b"\x1a\x45\xdf\xa3"),
    ("a video (MPEG)", Video, 0, b"\0\0\x01\xba"),
    ("a video (MPEG)", Video, 0, b"\0\0\x01\xb3"),
    ("a video (FLV)", Video, 0, b"FLV\x01"),
    ("a video (WMV)", Video, 0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    ("a video (Ogg)", Video, 0, b"OggS"),
    ("a video (QuickTime)", Video, 4, b"moov"),
    ("a video (QuickTime)", Video, 4, b"mdat"),
    ("a zip archive", Archive, 0, b"PK\x03\x04"),
    ("a zip archive", Archive, 0, b"PK\x05\x06"),
    ("a gzip archive", Archive, 0, b"\x1f\x8b"),
    ("a bzip2 archive", Archive, 0, b"BZh"),
    ("an xz archive", Archive, 0, b"\xfd7zXZ"),
    ("a zstd archive", Archive, 0, b"\x28\xb5\x2f\xfd"),
    ("a 7z archive", Archive, 0, b"7z\xbc\xaf\x27\x1c"),
    ("a rar archive", Archive, 0, b"Rar!"),
    (TAR, Archive, 257, b"ustar"),
    ("a NumPy file (npy)", Numbers, 0, b"\x93NUMPY"),
    ("an HDF5 file", Numbers, 0, b"\x89HDF\r\n\x1a\n"),
    ("a MATLAB file", Numbers, 0, b"MATLAB 5.0"),
    ("PDF", Document, 0, b"%PDF"),
    ("PostScript", Document, 0, b"%!PS"),
    ("a pointer of Git LFS", Pointer, 0, b"version https://git-lfs"),
];

/// Brands of the ISO base media format, which holds pictures and videos.
const BRANDS: &[(&str, Content, &[&[u8; 4]])] = &[
    ("AVIF", Picture, &[b"avif", b"avis"]),
    (
        "HEIC",
        Picture,
        &[
            b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1",
            b"msf1", b"mif2",
        ],
    ),
    ("a raw camera file (CR3)", CameraFile, &[b"crx "]),
];

/// Extensions (lower case) of files that the signatures do not tell apart from a readable
/// format or from anything else.
const EXTENSIONS: &[(&str, Content, &str)] = &[
    ("HEIC", Picture, "heic heif hif"),
    ("AVIF", Picture, "avif"),
    ("JPEG 2000", Picture, "jp2 j2k j2c jpf jpx"),
    ("JPEG XL", Picture, "jxl"),
    ("DICOM", Picture, "dcm dicom"),
    ("SVG", Picture, "svg svgz"),
    ("NIfTI", Picture, "nii"),
    ("a Photoshop file (PSD)", Picture, "psd psb"),
    ("OpenEXR", Picture, "exr"),
    ("PCX", Picture, "pcx"),
    (
        "a raw camera file",
        CameraFile,
        "3fr arw cr2 cr3 crw dcr dng erf fff iiq k25 kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f",
    ),
    (
        "a video",
        Video,
        "3gp avi m2ts m4v mkv mov mp4 mpeg mpg mts webm wmv",
    ),
];

/// The format of a file that is not read, if its beginning tells.
pub fn by_content(start: &[u8]) -> Option<Kind> {
    let kind =
        |&(name, content, ..): &(&'static str, Content, usize, &[u8])| Kind { name, content };
    let is_there = |&&(_, _, at, bytes): &&(&str, Content, usize, &[u8])| {
        start.get(at..).is_some_and(|rest| rest.starts_with(bytes))
    };
    let signed = SIGNATURES.iter().find(is_there).map(kind);
    signed
        .or_else(|| by_brand(start))
        .or_else(|| by_text(start))
}

/// The format of a file that is not read, if its extension is that of one.
pub fn by_extension(path: &Path) -> Option<Kind> {
    let extension = path.extension().and_then(OsStr::to_str)?;
    let is_listed = |listed: &str| {
        let mut words = listed.split(' ');
        words.any(|known| known.eq_ignore_ascii_case(extension))
    };
    let found = EXTENSIONS.iter().find(|(.., listed)| is_listed(listed));
    found.map(|&(name, content, _)| Kind { name, content })
}

/// The format of a camera's own file by its extension. Many of these begin as TIFF files do, with
/// a thumbnail.
pub fn raw_by_extension(path: &Path) -> Option<Kind> {
    by_extension(path).filter(|kind| kind.content == CameraFile)
}

/// The raw format of a camera in a TIFF file.
pub const CAMERA_TIFF: Kind = Kind {
    name: "a raw camera file",
    content: CameraFile,
};

fn by_brand(start: &[u8]) -> Option<Kind> {
    if start.get(4..8) != Some(b"ftyp") {
        return None;
    }
    let length = start
        .first_chunk()
        .map_or(0, |&bytes| u32::from_be_bytes(bytes));
    let end = start.len().min(length as usize).max(12.min(start.len()));
    // The brand itself, a version, and the brands that it agrees with.
    let mut brands = start[8..end].chunks_exact(4);
    let found = BRANDS.iter().find(|(.., known)| {
        brands
            .clone()
            .any(|brand| known.iter().any(|known| *known == brand))
    });
    let video = ("a video (MP4 or QuickTime)", Video);
    let (name, content) = found.map_or(video, |&(name, content, _)| (name, content));
    brands.next().map(|_| Kind { name, content })
}

fn by_text(start: &[u8]) -> Option<Kind> {
    let text = String::from_utf8_lossy(start).to_ascii_lowercase();
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let (name, content) = match text {
        _ if text.starts_with("<!doctype html") || text.starts_with("<html") => {
            ("a web page (HTML)", Document)
        }
        _ if text.starts_with('<') && text.contains("<svg") => ("SVG", Picture),
        _ => return None,
    };
    Some(Kind { name, content })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brand_is_found_among_those_that_it_agrees_with() {
        let name = |start: &[u8]| by_content(start).map(|kind| kind.name);
        assert_eq!(name(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), Some("HEIC"));
        assert_eq!(name(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif"), Some("AVIF"));
        let video = Some("a video (MP4 or QuickTime)");
        assert_eq!(name(b"\0\0\0\x14ftypisom\0\0\0\0mp41"), video);
        assert_eq!(name(b"\0\0\0\x14ftypqt  "), video);
        assert_eq!(name(b"\0\0\0\x14ftyp"), None);
        // A brand behind the end of the list is none.
        assert_eq!(name(b"\0\0\0\x14ftypisom\0\0\0\0mp41....heic"), video);
    }

    #[test]
    fn text_is_told_apart() {
        let name = |start: &[u8]| by_content(start).map(|kind| kind.name);
        assert_eq!(name(b"\n<?xml version='1.0'?><svg>"), Some("SVG"));
        assert_eq!(name(b"<!DOCTYPE html><svg>"), Some("a web page (HTML)"));
        assert_eq!(name(b"a < b <svg"), None);
        assert_eq!(name(b""), None);
    }
}
