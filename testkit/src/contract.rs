//! What every engine must do, whatever it is made of. Runs on the fake here and on the real sandbox elsewhere.
