//! Serves the API, and pages of a folder if one is named, on 127.0.0.1.
#![forbid(unsafe_code)]

use clap::Parser;
use smol::{Async, LocalExecutor};
use std::{
    net::TcpListener,
    path::{Component, Path, PathBuf},
    rc::Rc,
    time::Duration,
};
use tessera_hostd::{
    api::Api,
    http::{Body, Request, Response},
    state::MemoryStore,
};
use tessera_hostd_dev::{http, platform::Machine, simulated::Simulated};

/// hostd over a simulated host.
#[derive(Parser)]
struct Options {
    /// Port on 127.0.0.1; 0: any that is free.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Password of root.
    #[arg(long, default_value = "tessera-dev")]
    password: String,
    /// Folder with the pages.
    #[arg(long)]
    web: Option<PathBuf>,
    /// Milliseconds that starting a machine takes.
    #[arg(long, default_value_t = 400)]
    delay: u64,
    /// Print the OpenAPI description and end.
    #[arg(long)]
    describe: bool,
}

fn page(folder: Option<&Path>, request: &Request) -> Response {
    let name = Path::new(if request.path == "/" {
        "index.html"
    } else {
        request.path.trim_start_matches('/')
    });
    let inside = name.components().all(|part| matches!(part, Component::Normal(_)));
    let Some(bytes) = folder.filter(|_| inside).and_then(|folder| std::fs::read(folder.join(name)).ok()) else {
        return Response::new(404);
    };
    let kind = match name.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript",
        Some("css") => "text/css",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    };
    Response::new(200).with_body(kind, Body::Bytes(bytes))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    if options.describe {
        print!("{}", tessera_hostd::api::describe());
        return Ok(());
    }
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        let host = Rc::new(Simulated::new(Duration::from_millis(options.delay)));
        let machine = Rc::new(Machine::new(executor.clone()));
        let api = Api::start(host, machine, Rc::new(MemoryStore::default()), Some(&options.password))
            .await
            .map_err(|error| format!("{error:?}"))?;
        let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], options.port))?;
        println!("http://{}/ (root, {})", listener.get_ref().local_addr()?, options.password);
        loop {
            let (stream, _) = listener.accept().await?;
            let (api, web) = (api.clone(), options.web.clone());
            // A connection that fails concerns nobody else.
            executor
                .spawn(async move {
                    http::serve(stream, api, move |request| page(web.as_deref(), request))
                        .await
                        .unwrap_or(())
                })
                .detach();
        }
    }))
}
