//! Runs the whole compiler over one file, with memory and files as a caller of the library lends them.

use cofferdam_dts::{Diagnostic, Diagnostics, Loaded, Loader, Source, lend_storage};
use cofferdam_partitioner::compile::{self, HypImage, ImageFile, Images};
use cofferdam_partitioner::front;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Codes that no source text can raise: what is wrong with a binary board, and mistakes of the compiler itself.
pub(crate) const WITHOUT_FIXTURE: &[&str] = &["E0124", "E1399"];

/// A code at a place. Line and column count from 1; columns as an editor shows them, tabs to multiples of 8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Mark {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) code: String,
}

/// Column of the text behind `before`, from 1.
fn column(before: &str) -> usize {
    before.chars().fold(0, |column, c| if c == '\t' { (column / 8 + 1) * 8 } else { column + 1 }) + 1
}

/// The marks of a fixture.
pub(crate) fn marks(file: &str, text: &str) -> BTreeSet<Mark> {
    let mut found = BTreeSet::new();
    let mut marked = 0;
    for (index, line) in text.lines().enumerate() {
        let Some(inside) = line.trim().strip_prefix("/*").and_then(|l| l.strip_suffix("*/")) else {
            marked = index + 1;
            continue;
        };
        if let Some((place, codes)) = inside.strip_prefix('>').and_then(|mark| mark.trim().split_once(' ')) {
            let parts: Vec<&str> = place.split(':').collect();
            let [name, line, column] = parts[..] else { panic!("{file}: {place} is no file:line:column") };
            let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{file}: {place} is no place"));
            let included = Path::new(file).parent().unwrap_or(Path::new("")).join(name);
            let included = included.to_str().expect("paths are text");
            for code in codes.split_whitespace() {
                let (line, column) = (number(line), number(column));
                found.insert(Mark { file: included.to_owned(), line, column, code: code.to_owned() });
            }
            continue;
        }
        let (column, codes) = match (inside.strip_prefix('<'), inside.split_once('^')) {
            (Some(codes), _) => (1, codes),
            (None, Some((_, codes))) => (column(line.split('^').next().unwrap_or("")), codes),
            _ => {
                marked = index + 1;
                continue;
            }
        };
        for code in codes.split_whitespace() {
            found.insert(Mark { file: file.to_owned(), line: marked, column, code: code.to_owned() });
        }
    }
    found
}

/// The primary place of a diagnostic.
pub(crate) fn place(diagnostic: &Diagnostic<'_>, files: &[Source<'_>]) -> Mark {
    let span = diagnostic.primary;
    let code = diagnostic.code.to_string();
    let Some(source) = files.get(usize::from(span.file.0)) else {
        return Mark { file: "?".to_owned(), line: 0, column: 0, code };
    };
    let before = source.text.get(..span.start as usize).unwrap_or_else(|| panic!("{code}: a span outside its file"));
    let line = before.rsplit('\n').next().unwrap_or("");
    Mark { file: source.path.to_owned(), line: before.matches('\n').count() + 1, column: column(line), code }
}

/// Finds includes beside the file that asks, then among the boards. Texts are kept for good: a test ends soon.
struct Folders {
    boards: PathBuf,
}

impl Loader<'static> for Folders {
    fn load(&mut self, from: &str, name: &str, _system: bool) -> Loaded<'static> {
        let beside = Path::new(from).parent().map(|folder| folder.join(name));
        let found = beside.into_iter().chain([self.boards.join(name)]).find(|path| path.is_file());
        found.map_or(Loaded::Missing, |path| open(&path).map_or(Loaded::Unreadable, Loaded::Found))
    }
}

fn open(path: &Path) -> Option<Source<'static>> {
    let text = String::from_utf8(std::fs::read(path).ok()?).ok()?;
    let path = path.to_str()?.to_owned();
    Some(Source { path: path.leak(), text: text.leak() })
}

/// Guest images lie beside the layout; the runtime's examples and Debian's are not built or fetched for this and not looked
/// at.
struct Guests {
    folder: PathBuf,
    examples: PathBuf,
}

impl Images for Guests {
    fn open(&self, path: &str) -> ImageFile<'_> {
        let example = path.strip_suffix(".elf").is_some_and(|name| self.examples.join(name).is_dir());
        match std::fs::read(self.folder.join(path)) {
            Ok(bytes) => ImageFile::Bytes(bytes.leak()),
            Err(_) if example || path.starts_with("debian/") => ImageFile::Skipped,
            Err(_) => ImageFile::Missing,
        }
    }
}

/// Compiles `path` with boards from `boards` and shows what was raised, and the files, to `visit`.
pub(crate) fn compile<R>(path: &Path, boards: &Path, visit: impl FnOnce(&[&Diagnostic<'_>], &[Source<'_>]) -> R) -> R {
    let main = open(path).unwrap_or_else(|| panic!("{}: not readable", path.display()));
    compile_source(main, path, boards, visit)
}

/// The same for a text that stands at `path` only in name.
pub(crate) fn compile_source<R>(
    main: Source<'_>,
    path: &Path,
    boards: &Path,
    visit: impl FnOnce(&[&Diagnostic<'_>], &[Source<'_>]) -> R,
) -> R {
    let guests = Guests {
        folder: path.parent().expect("a file is in a folder").to_owned(),
        examples: boards.with_file_name("unikernel").join("examples"),
    };
    let mut capacities = cofferdam_dts::Capacities::default();
    let mut room = 256;
    for _ in 0..24 {
        lend_storage!(storage, capacities);
        let mut slots = vec![None; 256];
        let mut diagnostics = Diagnostics::new(&mut slots);
        let mut folders = Folders { boards: boards.to_owned() };
        let parsed = match cofferdam_dts::parse(storage, &mut folders, &[main], &mut diagnostics) {
            Ok(parsed) => parsed,
            Err(full) => {
                capacities.grow(full);
                continue;
            }
        };
        macro_rules! lend {
            ($($name:ident),*) => { $(let mut $name = vec![Default::default(); room]; let $name = $name.as_mut_slice();)* };
        }
        lend!(devices, regions, interrupts, ports, sort, owners);
        let front = front::Memory { devices, regions, interrupts, ports, sort, owners };
        lend!(pieces, payloads, ranges, scratch, bytes);
        let mut blob = vec![0; room * 64];
        let memory = compile::Memory { blob: &mut blob, pieces, payloads, ranges, scratch, bytes };
        let done = compile::compile(parsed.tree, front, memory, &guests, &HypImage::NOMINAL, &mut diagnostics);
        if done.is_err() {
            room *= 2;
            continue;
        }
        assert_eq!(diagnostics.lost(), 0, "{}: more than 256 diagnostics", path.display());
        let raised: Vec<_> = diagnostics.iter().collect();
        return visit(&raised, parsed.files);
    }
    panic!("{}: no end of memory asked for", path.display());
}
