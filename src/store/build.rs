//! `migrate!` embeds the migrations at compile time, but cargo does not see that they are inputs.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
    println!("cargo:rerun-if-changed=../../.sqlx");
}
