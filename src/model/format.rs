//! The number formats of tensors in files.

use std::fmt;

use candle_core::{DType, Device, Result, Tensor};

/// The number format of a tensor in a file: those of PyTorch and safetensors that may hold weights,
/// and the rest by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    F64,
    F32,
    F16,
    Bf16,
    /// 4 bits of exponent, 3 of mantissa, no infinity (`float8_e4m3fn`).
    F8E4m3,
    /// 5 bits of exponent, 2 of mantissa (`float8_e5m2`).
    F8E5m2,
    I8,
    /// No weights: a mask, packed or complex numbers. Its short name and bytes per element.
    Other(&'static str, usize),
}

/// PyTorch's name, that of its typed storage, safetensors', and the format.
const FORMATS: [(&str, &str, &str, Format); 21] = [
    ("float64", "DoubleStorage", "F64", Format::F64),
    ("float32", "FloatStorage", "F32", Format::F32),
    ("float16", "HalfStorage", "F16", Format::F16),
    ("bfloat16", "BFloat16Storage", "BF16", Format::Bf16),
    ("float8_e4m3fn", "", "F8_E4M3", Format::F8E4m3),
    ("float8_e5m2", "", "F8_E5M2", Format::F8E5m2),
    ("float8_e4m3fnuz", "", "F8_E4M3FNUZ", Format::Other("f8e4m3fnuz", 1)),
    ("float8_e5m2fnuz", "", "F8_E5M2FNUZ", Format::Other("f8e5m2fnuz", 1)),
    ("float8_e8m0fnu", "", "F8_E8M0", Format::Other("f8e8m0", 1)),
    ("float4_e2m1fn_x2", "", "F4", Format::Other("f4", 1)),
    ("int8", "CharStorage", "I8", Format::I8),
    ("uint8", "ByteStorage", "U8", Format::Other("u8", 1)),
    ("bool", "BoolStorage", "BOOL", Format::Other("bool", 1)),
    ("int16", "ShortStorage", "I16", Format::Other("i16", 2)),
    ("uint16", "", "U16", Format::Other("u16", 2)),
    ("int32", "IntStorage", "I32", Format::Other("i32", 4)),
    ("uint32", "", "U32", Format::Other("u32", 4)),
    ("int64", "LongStorage", "I64", Format::Other("i64", 8)),
    ("uint64", "", "U64", Format::Other("u64", 8)),
    ("complex64", "ComplexFloatStorage", "C64", Format::Other("complex64", 8)),
    ("complex128", "ComplexDoubleStorage", "", Format::Other("complex128", 16)),
];

impl Format {
    /// By PyTorch's name, without `torch.`.
    pub fn of_torch(name: &str) -> Option<Self> {
        FORMATS.iter().find(|row| row.0 == name).map(|row| row.3)
    }

    /// By the name of PyTorch's typed storage.
    pub fn of_storage(name: &str) -> Option<Self> {
        FORMATS.iter().find(|row| row.1 == name && !name.is_empty()).map(|row| row.3)
    }

    /// By the name in a safetensors header.
    pub fn of_safetensors(name: &str) -> Option<Self> {
        FORMATS.iter().find(|row| row.2 == name && !name.is_empty()).map(|row| row.3)
    }

    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::F8E4m3 | Self::F8E5m2 | Self::I8 => 1,
            Self::Other(_, size) => size,
        }
    }

    /// The values of `shape` in little-endian `bytes`; formats that candle does not compute in become
    /// float32, which holds each of their values.
    ///
    /// # Errors
    /// For a format that holds no weights, or bytes that are not as many as `shape` takes.
    pub fn tensor(self, bytes: &[u8], shape: &[usize]) -> Result<Tensor> {
        let plain = |dtype| Tensor::from_raw_buffer(bytes, dtype, shape, &Device::Cpu);
        let widened = |value: fn(u8) -> f32| {
            let values: Vec<f32> = bytes.iter().map(|&byte| value(byte)).collect();
            Tensor::from_vec(values, shape, &Device::Cpu)
        };
        match self {
            Self::F64 => plain(DType::F64),
            Self::F32 => plain(DType::F32),
            Self::F16 => plain(DType::F16),
            Self::Bf16 => plain(DType::BF16),
            Self::F8E4m3 => widened(e4m3),
            Self::F8E5m2 => {
                // The upper byte of a float16.
                let halves: Vec<u8> = bytes.iter().flat_map(|&byte| [0, byte]).collect();
                Tensor::from_raw_buffer(&halves, DType::F16, shape, &Device::Cpu)?.to_dtype(DType::F32)
            }
            Self::I8 => widened(|byte| f32::from(byte.cast_signed())),
            Self::Other(name, _) => {
                candle_core::bail!("its values are {name}, which is no format of weights")
            }
        }
    }

    /// The whole numbers in little-endian `bytes`; `None` for a format of others.
    pub fn integers(self, bytes: &[u8]) -> Option<Vec<i64>> {
        fn read<const N: usize>(bytes: &[u8], of: fn([u8; N]) -> i64) -> Vec<i64> {
            bytes.as_chunks::<N>().0.iter().map(|chunk| of(*chunk)).collect()
        }
        Some(match self {
            Self::Other("u8", _) => read(bytes, |[byte]| byte.into()),
            Self::Other("i16", _) => read(bytes, |chunk| i16::from_le_bytes(chunk).into()),
            Self::Other("u16", _) => read(bytes, |chunk| u16::from_le_bytes(chunk).into()),
            Self::Other("i32", _) => read(bytes, |chunk| i32::from_le_bytes(chunk).into()),
            Self::Other("u32", _) => read(bytes, |chunk| u32::from_le_bytes(chunk).into()),
            Self::Other("i64", _) => read(bytes, i64::from_le_bytes),
            _ => return None,
        })
    }

    /// The format of candle that is the same.
    pub fn dtype(self) -> Option<DType> {
        match self {
            Self::F64 => Some(DType::F64),
            Self::F32 => Some(DType::F32),
            Self::F16 => Some(DType::F16),
            Self::Bf16 => Some(DType::BF16),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F8E4m3 => "f8e4m3",
            Self::F8E5m2 => "f8e5m2",
            Self::I8 => "i8",
            Self::Other(name, _) => name,
        })
    }
}

/// float8_e4m3fn: exponent bias 7; all ones but the sign is NaN.
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 0xf), f32::from(byte & 7));
    let magnitude = match (exponent, byte & 7) {
        (0xf, 7) => f32::NAN,
        (0, _) => mantissa / 8.0 * 2f32.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bits_are_the_values_of_their_formats() {
        let values = |format: Format, bytes: &[u8]| -> Vec<f32> {
            format.tensor(bytes, &[bytes.len()]).unwrap().to_vec1().unwrap()
        };
        let bytes = [0x00, 0x01, 0x08, 0x38, 0x7e, 0xb8, 0x80];
        assert_eq!(
            values(Format::F8E4m3, &bytes),
            [0.0, 2f32.powi(-9), 2f32.powi(-6), 1.0, 448.0, -1.0, -0.0]
        );
        assert!(values(Format::F8E4m3, &[0x7f, 0xff]).iter().all(|x| x.is_nan()));
        let bytes = [0x00, 0x01, 0x3c, 0x7b, 0x7c, 0xfc];
        assert_eq!(
            values(Format::F8E5m2, &bytes),
            [0.0, 2f32.powi(-16), 1.0, 57344.0, f32::INFINITY, f32::NEG_INFINITY]
        );
        assert_eq!(values(Format::I8, &[0, 127, 0x80, 0xff]), [0.0, 127.0, -128.0, -1.0]);
        assert!(Format::Other("bool", 1).tensor(&[1], &[1]).is_err());
    }
}
