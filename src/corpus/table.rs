//! Tables in Parquet files: one row group after the other, each a set of whole columns.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor, Type};

use crate::error::{Error, Result};
use crate::files::unreadable;
use crate::guard::guard;

/// The values of a column.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Text(Vec<String>),
    I32s(Vec<Vec<i32>>),
    I64s(Vec<Vec<i64>>),
    F32s(Vec<Vec<f32>>),
    Texts(Vec<Vec<String>>),
}

impl Column {
    /// Its type, whether it is text, and whether each value is a list.
    fn kind(&self) -> (Physical, bool, bool) {
        match self {
            Self::I32(_) => (Physical::INT32, false, false),
            Self::I64(_) => (Physical::INT64, false, false),
            Self::F32(_) => (Physical::FLOAT, false, false),
            Self::F64(_) => (Physical::DOUBLE, false, false),
            Self::Text(_) => (Physical::BYTE_ARRAY, true, false),
            Self::I32s(_) => (Physical::INT32, false, true),
            Self::I64s(_) => (Physical::INT64, false, true),
            Self::F32s(_) => (Physical::FLOAT, false, true),
            Self::Texts(_) => (Physical::BYTE_ARRAY, true, true),
        }
    }

    fn schema(&self, name: &str) -> ParquetResult<Type> {
        let (physical, is_text, is_list) = self.kind();
        let leaf = |name: &str| {
            Type::primitive_type_builder(name, physical)
                .with_repetition(Repetition::REQUIRED)
                .with_logical_type(is_text.then_some(LogicalType::String))
                .build()
        };
        if !is_list {
            return leaf(name);
        }
        let list = Type::group_type_builder("list")
            .with_repetition(Repetition::REPEATED)
            .with_fields(vec![Arc::new(leaf("element")?)])
            .build()?;
        Type::group_type_builder(name)
            .with_repetition(Repetition::REQUIRED)
            .with_logical_type(Some(LogicalType::List))
            .with_fields(vec![Arc::new(list)])
            .build()
    }

    fn write(&self, to: SerializedColumnWriter) -> ParquetResult<()> {
        match self {
            Self::I32(values) => plain::<Int32Type>(to, values),
            Self::I64(values) => plain::<Int64Type>(to, values),
            Self::F32(values) => plain::<FloatType>(to, values),
            Self::F64(values) => plain::<DoubleType>(to, values),
            Self::Text(values) => plain::<ByteArrayType>(to, &texts(values)),
            Self::I32s(values) => lists::<Int32Type>(to, values),
            Self::I64s(values) => lists::<Int64Type>(to, values),
            Self::F32s(values) => lists::<FloatType>(to, values),
            Self::Texts(values) => {
                lists::<ByteArrayType>(to, &values.iter().map(|list| texts(list)).collect::<Vec<_>>())
            }
        }
    }
}

fn texts(values: &[String]) -> Vec<ByteArray> {
    values.iter().map(|text| ByteArray::from(text.as_str())).collect()
}

fn plain<T: DataType>(mut to: SerializedColumnWriter, values: &[T::T]) -> ParquetResult<()> {
    to.typed::<T>().write_batch(values, None, None)?;
    to.close()
}

fn lists<T: DataType>(mut to: SerializedColumnWriter, lists: &[Vec<T::T>]) -> ParquetResult<()> {
    let (mut definition, mut repetition) = (Vec::new(), Vec::new());
    for list in lists {
        definition.extend(std::iter::repeat_n(1, list.len()).chain((list.is_empty()).then_some(0)));
        repetition.extend((0..list.len().max(1)).map(|i| i16::from(i > 0)));
    }
    let values = lists.concat();
    to.typed::<T>().write_batch(&values, Some(&definition), Some(&repetition))?;
    to.close()
}

/// Some rows, column by column, with the names of the columns.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table(pub Vec<(&'static str, Column)>);

/// Writes a file whose row groups are `tables`, all with the columns of the first.
pub fn write(to: &mut (dyn Write + Send), tables: impl IntoIterator<Item = Table>) -> std::io::Result<()> {
    let mut tables = tables.into_iter().peekable();
    let fields = tables.peek().map_or(&[][..], |table| &table.0);
    let fields: ParquetResult<Vec<_>> =
        fields.iter().map(|(name, column)| column.schema(name).map(Arc::new)).collect();
    let write = || -> ParquetResult<()> {
        let schema = Type::group_type_builder("schema").with_fields(fields?).build()?;
        let schema = Arc::new(schema);
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
            .set_created_by(format!("actscope {}", env!("CARGO_PKG_VERSION")));
        for column in SchemaDescriptor::new(Arc::clone(&schema)).columns() {
            // Numbers that seldom repeat, but resemble each other.
            let encoding = match column.physical_type() {
                Physical::FLOAT | Physical::DOUBLE => Encoding::BYTE_STREAM_SPLIT,
                Physical::INT64 if column.max_rep_level() > 0 => Encoding::DELTA_BINARY_PACKED,
                _ => continue,
            };
            properties = properties
                .set_column_dictionary_enabled(column.path().clone(), false)
                .set_column_encoding(column.path().clone(), encoding);
        }
        let properties = properties.build();
        let mut file = SerializedFileWriter::new(to, schema, Arc::new(properties))?;
        for table in tables.by_ref() {
            let mut group = file.next_row_group()?;
            for (_, column) in &table.0 {
                let next = group.next_column()?;
                column.write(next.ok_or_else(|| ParquetError::General("too many columns".into()))?)?;
            }
            group.close()?;
        }
        file.close().map(drop)
    };
    write().map_err(|error| match error {
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            Ok(cause) => *cause,
            Err(cause) => std::io::Error::other(cause),
        },
        other => std::io::Error::other(other),
    })
}

/// A Parquet file that is read.
pub struct Reader {
    file: Box<dyn FileReader>,
    path: std::path::PathBuf,
}

impl Reader {
    /// # Errors
    /// [`Error::File`] for a file that is missing or no Parquet file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        Self::new(path, move || Ok(Box::new(SerializedFileReader::new(file)?)))
    }

    /// A file that is part of the program.
    ///
    /// # Errors
    /// [`Error::File`] if it is no Parquet file.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self> {
        Self::new(Path::new(name), || Ok(Box::new(SerializedFileReader::new(Bytes::from_static(bytes))?)))
    }

    fn new(path: &Path, open: impl FnOnce() -> ParquetResult<Box<dyn FileReader>>) -> Result<Self> {
        let file = guarded(open)
            .map_err(|problem| Error::file(path, format!("is not a Parquet file: {problem}")))?;
        Ok(Self { file, path: path.into() })
    }

    pub fn n_groups(&self) -> usize {
        self.file.metadata().num_row_groups()
    }

    /// # Errors
    /// [`Error::File`] if there is no such group.
    pub fn n_rows(&self, group: usize) -> Result<usize> {
        let rows = || Ok(self.file.get_row_group(group)?.metadata().num_rows());
        let rows =
            guarded(rows).map_err(|problem| Error::file(&self.path, format!("cannot be read: {problem}")))?;
        Ok(rows.max(0) as usize)
    }

    /// The names of the columns, with `.list.element` and the like after those that are nested.
    pub fn columns(&self) -> Vec<String> {
        let schema = self.file.metadata().file_metadata().schema_descr();
        schema.columns().iter().map(|column| column.path().string()).collect()
    }

    /// The column `name` of row group `group`; `None` in place of values that are null.
    ///
    /// # Errors
    /// [`Error::File`] if there is no such column, or its type is another.
    pub fn read<T: Value>(&self, group: usize, name: &str) -> Result<Vec<Option<T>>> {
        let (index, column) = self.column(name)?;
        if column.max_rep_level() > 0 {
            return Err(self.wrong(name, "holds lists"));
        }
        let leaf: Leaf<T> = self.leaf(group, index, &column, name)?;
        let mut values = leaf.values.into_iter();
        let is_there = |level: &i16| *level == column.max_def_level();
        if leaf.definition.is_empty() {
            return Ok(values.map(Some).collect());
        }
        Ok(leaf.definition.iter().map(|level| if is_there(level) { values.next() } else { None }).collect())
    }

    /// The same of a column of lists.
    ///
    /// # Errors
    /// See [`Self::read`].
    pub fn read_lists<T: Value>(&self, group: usize, name: &str) -> Result<Vec<Option<Vec<T>>>> {
        let (index, column) = self.column(name)?;
        if column.max_rep_level() != 1 {
            return Err(self.wrong(name, "holds no lists"));
        }
        let leaf: Leaf<T> = self.leaf(group, index, &column, name)?;
        let mut values = leaf.values.into_iter();
        let mut lists: Vec<Option<Vec<T>>> = Vec::new();
        for (definition, repetition) in leaf.definition.iter().zip(&leaf.repetition) {
            if *repetition == 0 {
                lists.push(Some(Vec::new()));
            }
            if *definition == column.max_def_level() {
                if let (Some(Some(list)), Some(value)) = (lists.last_mut(), values.next()) {
                    list.push(value);
                }
            } else if let Some(last) =
                lists.last_mut().filter(|_| *definition == 0 && column.max_def_level() > 1)
            {
                *last = None;
            }
        }
        Ok(lists)
    }

    /// A column without nulls.
    ///
    /// # Errors
    /// See [`Self::read`]; also for a null.
    pub fn all<T: Value>(&self, group: usize, name: &str) -> Result<Vec<T>> {
        let values: Option<Vec<T>> = self.read(group, name)?.into_iter().collect();
        values.ok_or_else(|| self.wrong(name, "has nulls"))
    }

    /// A column of lists without nulls.
    ///
    /// # Errors
    /// See [`Self::all`].
    pub fn all_lists<T: Value>(&self, group: usize, name: &str) -> Result<Vec<Vec<T>>> {
        let lists: Option<Vec<Vec<T>>> = self.read_lists(group, name)?.into_iter().collect();
        lists.ok_or_else(|| self.wrong(name, "has nulls"))
    }

    /// Whether each value of a column is a list.
    ///
    /// # Errors
    /// [`Error::File`] if there is no such column.
    pub fn is_list(&self, name: &str) -> Result<bool> {
        Ok(self.column(name)?.1.max_rep_level() > 0)
    }

    /// The type of a column.
    ///
    /// # Errors
    /// [`Error::File`] if there is no such column.
    pub fn physical(&self, name: &str) -> Result<Physical> {
        Ok(self.column(name)?.1.physical_type())
    }

    fn column(&self, name: &str) -> Result<(usize, Arc<ColumnDescriptor>)> {
        let schema = self.file.metadata().file_metadata().schema_descr();
        let is_it =
            |column: &Arc<ColumnDescriptor>| column.path().parts().first().is_some_and(|first| first == name);
        let at = schema.columns().iter().position(is_it);
        let at = at.ok_or_else(|| {
            Error::file(
                &self.path,
                format!("has no column `{name}`: there are {}", self.columns().join(", ")),
            )
        })?;
        Ok((at, schema.column(at)))
    }

    pub fn wrong(&self, name: &str, what: &str) -> Error {
        Error::file(&self.path, format!("the column `{name}` {what}"))
    }

    fn leaf<T: Value>(
        &self,
        group: usize,
        at: usize,
        column: &ColumnDescriptor,
        name: &str,
    ) -> Result<Leaf<T>> {
        if column.physical_type() != T::Of::get_physical_type() {
            return Err(
                self.wrong(name, &format!("holds {}, which cannot be used here", column.physical_type()))
            );
        }
        let read = || -> ParquetResult<Leaf<T>> {
            let group = self.file.get_row_group(group)?;
            let n = group.metadata().num_rows().max(0) as usize;
            let mut reader = get_typed_column_reader::<T::Of>(group.get_column_reader(at)?);
            let (mut values, mut definition, mut repetition) = (Vec::new(), Vec::new(), Vec::new());
            let (has_definition, has_repetition) = (column.max_def_level() > 0, column.max_rep_level() > 0);
            let mut seen = 0;
            while seen < n {
                let (records, ..) = reader.read_records(
                    n - seen,
                    has_definition.then_some(&mut definition),
                    has_repetition.then_some(&mut repetition),
                    &mut values,
                )?;
                if records == 0 {
                    break;
                }
                seen += records;
            }
            let values = values.into_iter().map(T::from).collect::<Option<Vec<_>>>();
            let values = values.ok_or_else(|| ParquetError::General("text that is not UTF-8".into()))?;
            Ok(Leaf { values, definition, repetition })
        };
        guarded(read).map_err(|problem| self.wrong(name, &format!("cannot be read: {problem}")))
    }
}

/// What reads a file; the crate may panic on one that lies.
fn guarded<T>(read: impl FnOnce() -> ParquetResult<T>) -> Result<T, String> {
    guard(|| read().map_err(|error| error.to_string())).flatten()
}

/// The values of a column with their levels, as Parquet stores them.
struct Leaf<T> {
    values: Vec<T>,
    definition: Vec<i16>,
    repetition: Vec<i16>,
}

/// A type of values.
pub trait Value: Sized {
    type Of: DataType;
    /// `None` for bytes that are no value of this type.
    fn from(value: <Self::Of as DataType>::T) -> Option<Self>;
}

macro_rules! values {
    ($($rust:ty: $parquet:ty;)*) => { $(
        impl Value for $rust {
            type Of = $parquet;
            fn from(value: $rust) -> Option<Self> { Some(value) }
        }
    )* };
}

values! { i32: Int32Type; i64: Int64Type; f32: FloatType; f64: DoubleType; }

impl Value for String {
    type Of = ByteArrayType;
    fn from(value: ByteArray) -> Option<Self> {
        Some(value.as_utf8().ok()?.to_owned())
    }
}

/// Bytes that may not be UTF-8.
impl Value for Vec<u8> {
    type Of = ByteArrayType;
    fn from(value: ByteArray) -> Option<Self> {
        Some(value.data().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table() -> Table {
        Table(vec![
            ("a", Column::I32(vec![1, -2, 3])),
            ("b", Column::Text(vec!["x".into(), String::new(), "漢".into()])),
            ("c", Column::F32s(vec![vec![], vec![1.5], vec![-0.0, f32::INFINITY]])),
            ("d", Column::I64s(vec![vec![1], vec![], vec![i64::MIN, 7]])),
            ("e", Column::Texts(vec![vec!["y".into()], vec![], vec![]])),
            ("f", Column::F64(vec![0.1, 0.2, 0.3])),
        ])
    }

    fn bytes() -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, [table(), table()]).unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<Table>> {
        let bytes = Bytes::copy_from_slice(bytes);
        let reader = Reader::new(Path::new("t"), move || Ok(Box::new(SerializedFileReader::new(bytes)?)))?;
        let group = |i| {
            Ok(Table(vec![
                ("a", Column::I32(reader.all(i, "a")?)),
                ("b", Column::Text(reader.all(i, "b")?)),
                ("c", Column::F32s(reader.all_lists(i, "c")?)),
                ("d", Column::I64s(reader.all_lists(i, "d")?)),
                ("e", Column::Texts(reader.all_lists(i, "e")?)),
                ("f", Column::F64(reader.all(i, "f")?)),
            ]))
        };
        (0..reader.n_groups()).map(group).collect()
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        assert_eq!(read(&bytes()).unwrap(), [table(), table()]);
        let mut none = Vec::new();
        write(&mut none, [Table(vec![("a", Column::I32(Vec::new()))])]).unwrap();
        assert!(!none.is_empty());
    }

    proptest! {
        #[test]
        fn a_file_that_lies_is_an_error_and_no_panic(
            changes in proptest::collection::vec((0usize..4000, any::<u8>()), 1..6),
            end in proptest::option::of(0usize..4000),
        ) {
            let mut bytes = bytes();
            for (at, byte) in changes {
                let n = bytes.len();
                bytes[at % n] = byte;
            }
            if let Some(end) = end {
                bytes.truncate(end);
            }
            let _ = read(&bytes);
        }
    }
}
