//! The SNTP client against chrony.

use std::{
    fs,
    net::UdpSocket,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tessera_hostd::ntp;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended by itself already, or does now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}

#[test]
fn chrony_is_understood_and_believed() {
    let chrony = Path::new("/usr/sbin/chronyd");
    if !chrony.exists() {
        eprintln!("skipped: {} is missing, run `make setup`", chrony.display());
        return;
    }
    let folder = std::env::temp_dir().join(format!("tessera-time-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    // A port that is free now; nobody else takes it in the moment until chrony has it.
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = folder.join("chrony.conf");
    let text = format!(
        "local stratum 8\nallow 127.0.0.1\nbindaddress 127.0.0.1\nport {port}\ncmdport 0\nbindcmdaddress /\npidfile {}\n",
        folder.join("pid").display()
    );
    fs::write(&settings, text).unwrap();
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let mut command = Command::new(chrony);
    // It leaves this machine's clock alone.
    command.args(["-x", "-d", "-u", user.trim(), "-f"]).arg(&settings);
    let server = Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    // Our clock is an hour behind.
    let own = || unix_us() - 3_600_000_000;
    let answered = (0..100).find_map(|nonce| {
        let sent = own();
        socket.send_to(&ntp::question(nonce + 1), ("127.0.0.1", port)).ok()?;
        let mut packet = [0; 512];
        match socket.recv(&mut packet) {
            Ok(length) => Some(ntp::answer(&packet[..length], nonce + 1, sent, own())),
            Err(_) => {
                std::thread::sleep(Duration::from_millis(50));
                None
            }
        }
    });
    drop(server);
    fs::remove_dir_all(&folder).unwrap();
    let answer = answered.expect("chrony does not answer").expect("its answer is not believed");
    assert_eq!(answer.stratum, 8);
    assert!((answer.offset_us - 3_600_000_000).abs() < 100_000, "{answer:?}");
}
