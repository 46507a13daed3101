//! What hidden states are made into. One file per task; each gives tensors or typed values, never text.

pub(crate) mod embed;
