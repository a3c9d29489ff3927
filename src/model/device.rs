//! `--device` and `--dtype`.

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device};

use crate::error::{Error, Result};

/// The device to compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceSpec {
    #[default]
    Cpu,
    Cuda(usize),
    Metal,
}

impl DeviceSpec {
    /// # Errors
    /// [`Error::Device`] if this build or machine does not have it.
    pub fn open(self) -> Result<Device> {
        let opened = match self {
            Self::Cpu => return Ok(Device::Cpu),
            Self::Cuda(n) => Device::new_cuda(n),
            Self::Metal => Device::new_metal(0),
        };
        opened.map_err(|e| {
            let feature = if self == Self::Metal { "metal" } else { "cuda" };
            let built = match self {
                Self::Cuda(_) => candle_core::utils::cuda_is_available(),
                _ => candle_core::utils::metal_is_available(),
            };
            Error::Device(if built {
                let cause = e.to_string();
                format!("cannot open device {self}: {}", cause.lines().next().unwrap_or_default())
            } else {
                format!("actscope was built without `{feature}`: rebuild with --features {feature}, or use --device cpu")
            })
        })
    }
}

impl FromStr for DeviceSpec {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s.split_once(':').unwrap_or((s, "0")) {
            ("cpu", "0") => Ok(Self::Cpu),
            ("metal", "0") => Ok(Self::Metal),
            ("cuda", n) => n.parse().map(Self::Cuda).map_err(|_| format!("`{n}` is not a GPU number")),
            _ => Err("expected cpu, cuda, cuda:N or metal".into()),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

/// The number format to compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DtypeSpec {
    #[default]
    F32,
    F64,
    F16,
    Bf16,
}

impl DtypeSpec {
    /// # Errors
    /// [`Error::Device`] if `device` cannot compute in this format.
    pub fn on(self, device: DeviceSpec) -> Result<DType> {
        match (self, device) {
            (Self::Bf16, DeviceSpec::Cpu) => Err(Error::Device(
                "the CPU cannot multiply bf16 matrices: use --dtype f32 (which holds bf16 weights exactly)"
                    .into(),
            )),
            (Self::F64, DeviceSpec::Metal) => {
                Err(Error::Device("Metal does not support f64: use --dtype f32".into()))
            }
            (Self::F32, _) => Ok(DType::F32),
            (Self::F64, _) => Ok(DType::F64),
            (Self::F16, _) => Ok(DType::F16),
            (Self::Bf16, _) => Ok(DType::BF16),
        }
    }
}

impl FromStr for DtypeSpec {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "f32" | "float32" => Ok(Self::F32),
            "f64" | "float64" => Ok(Self::F64),
            "f16" | "float16" => Ok(Self::F16),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            _ => Err("expected f32, f64, f16 or bf16".into()),
        }
    }
}
