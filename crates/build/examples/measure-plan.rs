//! How long the plan of each fixture takes, by a box that has one version of every toolchain: `measure-plan FOLDER ROUNDS`,
//! where the folder holds one fixture a folder. Prints `NAME<tab>MICROSECONDS`, the median of the rounds.

#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::path::PathBuf;
use std::time::Instant;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or_default());
    let rounds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(9);
    for fixture in std::fs::read_dir(folder)? {
        let fixture = fixture?;
        let mut took: Vec<u128> = (0..rounds)
            .map(|_| {
                let began = Instant::now();
                // A refusal is a plan, too: all was looked at.
                let _ = trackbed_build::fuzz::plan(&fixture.path());
                began.elapsed().as_micros()
            })
            .collect();
        took.sort_unstable();
        println!("{}\t{}", fixture.file_name().to_string_lossy(), took[took.len() / 2]);
    }
    Ok(())
}
