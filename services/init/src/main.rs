#![cfg_attr(target_os = "tessera", no_std, no_main)]
tessera_rt::entry!(main);
fn main() {
    tessera_rt::log::info!("hello {}", tessera_rt::start_info().name);
}
