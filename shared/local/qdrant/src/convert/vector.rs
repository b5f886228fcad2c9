//! Vectors, in and out, and whether they fit the collection.
//!
//! The deprecated flat fields of `Vector` (`data`, `indices`, `vectors_count`) are still read, as the
//! server does. They are never written: the client reads the newer `vector` field first.
#![allow(deprecated)]

use std::collections::HashMap;

use qdrant_client::qdrant as proto;
use qdrant_edge as edge;
use tonic::Status;

use crate::errors;

/// A vector of a point or of a query, before its place is known.
#[derive(Clone, Debug)]
pub enum Given {
    /// One dense vector.
    Dense(Vec<f32>),
    /// One sparse vector.
    Sparse(edge::SparseVector),
    /// A matrix: many dense vectors of one size.
    Multi(Vec<Vec<f32>>),
}

impl Given {
    /// Reads the protocol's vector.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` for texts, images and objects: there is no inference here.
    pub fn read(vector: proto::Vector) -> Result<Self, Status> {
        use proto::vector::Vector;
        match vector.vector {
            Some(Vector::Dense(dense)) => Ok(Self::Dense(dense.data)),
            Some(Vector::Sparse(given)) => sparse(given.indices, given.values),
            Some(Vector::MultiDense(multi)) => {
                Ok(Self::Multi(multi.vectors.into_iter().map(|dense| dense.data).collect()))
            }
            Some(Vector::Document(_)) => Err(errors::unimplemented("Vector.document")),
            Some(Vector::Image(_)) => Err(errors::unimplemented("Vector.image")),
            Some(Vector::Object(_)) => Err(errors::unimplemented("Vector.object")),
            None => match (vector.indices, vector.vectors_count) {
                (Some(indices), _) => sparse(indices.data, vector.data),
                (None, Some(count)) => {
                    let size = vector.data.len() / (count.max(1) as usize);
                    let rows = vector.data.chunks(size.max(1)).map(<[f32]>::to_vec);
                    Ok(Self::Multi(rows.collect()))
                }
                (None, None) => Ok(Self::Dense(vector.data)),
            },
        }
    }

    /// Whether this vector may stand under `name`, with the errors of the server. The engine would
    /// notice too, but only after writing the operation to its log and applying a part of it.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`.
    pub fn check(&self, name: &str, config: &edge::EdgeConfig) -> Result<(), Status> {
        if let Some(params) = config.vectors.get(name) {
            let rows: &[Vec<f32>] = match self {
                Self::Sparse(_) => return Err(errors::from_engine(edge::OperationError::WrongSparse)),
                Self::Dense(row) => std::slice::from_ref(row),
                Self::Multi(rows) if params.multivector_config.is_some() => rows,
                Self::Multi(_) => return Err(errors::from_engine(edge::OperationError::WrongMulti)),
            };
            if rows.is_empty() {
                return Err(errors::bad_input("a multivector needs at least one vector"));
            }
            for row in rows {
                if row.len() != params.size {
                    return Err(errors::from_engine(edge::OperationError::WrongVectorDimension {
                        expected_dim: params.size,
                        received_dim: row.len(),
                    }));
                }
            }
            return Ok(());
        }
        match self {
            _ if !config.sparse_vectors.contains_key(name) => require_name(name, config),
            Self::Sparse(_) => Ok(()),
            _ => Err(errors::from_engine(edge::OperationError::WrongSparse)),
        }
    }

    /// The form that queries take.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an uneven matrix.
    pub fn into_query(self) -> Result<edge::VectorInternal, Status> {
        Ok(match self {
            Self::Dense(row) => edge::VectorInternal::Dense(row),
            Self::Sparse(vector) => edge::VectorInternal::Sparse(vector),
            Self::Multi(rows) => edge::VectorInternal::MultiDense(
                edge::TypedMultiDenseVector::try_from_matrix(rows).map_err(errors::from_engine)?,
            ),
        })
    }

    fn into_stored(self) -> edge::VectorPersisted {
        match self {
            Self::Dense(row) => edge::VectorPersisted::Dense(row),
            Self::Sparse(vector) => edge::VectorPersisted::Sparse(vector),
            Self::Multi(rows) => edge::VectorPersisted::MultiDense(rows),
        }
    }
}

/// A sparse vector with as many values as distinct indices.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn sparse(indices: Vec<u32>, values: Vec<f32>) -> Result<Given, Status> {
    edge::SparseVector::new(indices, values)
        .map(Given::Sparse)
        .map_err(|error| errors::invalid_field("sparse vector", error))
}

/// Whether the collection has a vector of this name.
///
/// # Errors
/// `INVALID_ARGUMENT` when not.
pub fn require_name(name: &str, config: &edge::EdgeConfig) -> Result<(), Status> {
    if config.vectors.contains_key(name) || config.sparse_vectors.contains_key(name) {
        return Ok(());
    }
    Err(errors::from_engine(edge::OperationError::VectorNameNotExists { received_name: name.to_owned() }))
}

/// The vectors of a point to be stored.
///
/// # Errors
/// `INVALID_ARGUMENT` when they do not fit the collection.
pub fn stored(
    vectors: Option<proto::Vectors>,
    config: &edge::EdgeConfig,
) -> Result<edge::VectorStructPersisted, Status> {
    use proto::vectors::VectorsOptions;
    let named = match vectors.and_then(|vectors| vectors.vectors_options) {
        None => HashMap::new(),
        Some(VectorsOptions::Vectors(named)) => named.vectors,
        Some(VectorsOptions::Vector(vector)) => {
            let given = Given::read(vector)?;
            given.check(edge::DEFAULT_VECTOR_NAME, config)?;
            return Ok(match given {
                Given::Dense(row) => edge::VectorStructPersisted::Single(row),
                Given::Multi(rows) => edge::VectorStructPersisted::MultiDense(rows),
                Given::Sparse(_) => edge::VectorStructPersisted::Named(HashMap::from([(
                    edge::DEFAULT_VECTOR_NAME.to_owned(),
                    given.into_stored(),
                )])),
            });
        }
    };
    let mut checked = HashMap::with_capacity(named.len());
    for (name, vector) in named {
        let given = Given::read(vector)?;
        given.check(&name, config)?;
        checked.insert(name, given.into_stored());
    }
    Ok(edge::VectorStructPersisted::Named(checked))
}

/// The protocol's form of the vectors of a point.
pub fn out(vectors: edge::VectorStructInternal) -> proto::VectorsOutput {
    use proto::vectors_output::VectorsOptions;
    let options = match vectors {
        edge::VectorStructInternal::Single(row) => VectorsOptions::Vector(one_out(edge::VectorInternal::Dense(row))),
        edge::VectorStructInternal::MultiDense(rows) => {
            VectorsOptions::Vector(one_out(edge::VectorInternal::MultiDense(rows)))
        }
        edge::VectorStructInternal::Named(named) => VectorsOptions::Vectors(proto::NamedVectorsOutput {
            vectors: named.into_iter().map(|(name, vector)| (name, one_out(vector))).collect(),
        }),
    };
    proto::VectorsOutput { vectors_options: Some(options) }
}

fn one_out(vector: edge::VectorInternal) -> proto::VectorOutput {
    use proto::vector_output::Vector;
    let vector = match vector {
        edge::VectorInternal::Dense(data) => Vector::Dense(proto::DenseVector { data }),
        edge::VectorInternal::Sparse(edge::SparseVector { indices, values }) => {
            Vector::Sparse(proto::SparseVector { values, indices })
        }
        edge::VectorInternal::MultiDense(multi) => {
            let rows = multi.flattened_vectors.chunks(multi.dim.max(1));
            let vectors = rows.map(|row| proto::DenseVector { data: row.to_vec() }).collect();
            Vector::MultiDense(proto::MultiDenseVector { vectors })
        }
    };
    proto::VectorOutput { vector: Some(vector), ..proto::VectorOutput::default() }
}
