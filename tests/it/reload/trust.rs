//! Pins and signatures: what is not trusted waits, each for its own reason.

use std::fs;

use harness::{TestGateway, wait_until};
use minisign::KeyPair;

use super::{LIMIT, digest, file, folder, plugin, refuses, replace, serves, version, with_marked};

fn signature(keys: &KeyPair, bytes: &[u8]) -> String {
    minisign::sign(Some(&keys.pk), &keys.sk, bytes, None, None).unwrap().into_string()
}

fn sign(gateway: &TestGateway, text: &str) {
    replace(&folder(gateway).join("marked.wasm.minisig"), text.as_bytes());
}

#[test]
fn unsigned_tampered_and_unpinned_are_told_apart() {
    let keys = KeyPair::generate_unencrypted_keypair().unwrap();
    let others = KeyPair::generate_unencrypted_keypair().unwrap();
    let signers = format!("[{:?}]", keys.pk.to_base64());
    let gateway = with_marked().prepare();
    sign(&gateway, &signature(&keys, &version(1)));
    let text = fs::read_to_string(gateway.config_file()).unwrap();
    fs::write(gateway.config_file(), format!("plugins.signers = {signers}\n{text}")).unwrap();
    gateway.start_again();
    let path = file(&gateway);
    serves(&gateway, &version(1), "signed");

    fs::remove_file(folder(&gateway).join("marked.wasm.minisig")).unwrap();
    replace(&path, &version(2));
    let waiting = refuses(&gateway, &version(1), "not-signed", "unsigned");
    assert_eq!((&waiting["state"], &waiting["digest"]), (&"staged".into(), &digest(&version(2)).into()));
    sign(&gateway, &signature(&others, &version(2)));
    refuses(&gateway, &version(1), "unknown-key", "signed by somebody else");
    sign(&gateway, &signature(&keys, &version(2)));
    serves(&gateway, &version(2), "signed after all");
    let mut tampered = version(2);
    *tampered.last_mut().unwrap() ^= 1;
    replace(&path, &tampered);
    refuses(&gateway, &version(2), "bad-signature", "one byte is another");

    replace(&path, &version(2));
    fs::write(folder(&gateway).join("plugins.lock"), format!("marked = \"{}\"\n", digest(&version(2)))).unwrap();
    wait_until("the pin is read", LIMIT, || {
        let plugin = plugin(&gateway, "marked");
        if plugin["pin"] == *digest(&version(2)) && plugin["candidate"].is_null() { Ok(()) } else { Err(plugin) }
    });
    sign(&gateway, &signature(&keys, &version(3)));
    replace(&path, &version(3));
    refuses(&gateway, &version(2), "not-pinned", "not pinned");
    gateway.start_again();
    refuses(&gateway, &version(2), "not-pinned", "not pinned, after a restart");
    let three = digest(&version(3));
    assert_eq!(gateway.admin().command(&format!("/plugins/marked/pin?digest={three}")).status, 200);
    serves(&gateway, &version(3), "pinned");
    let lock = fs::read_to_string(folder(&gateway).join("plugins.lock")).unwrap();
    assert!(lock.contains(&format!("marked = \"{three}\"")), "{lock}");
    assert_eq!(gateway.admin().command("/plugins/marked/pin?digest=sha256:5").status, 409);
    let two = digest(&version(2));
    assert_eq!(gateway.admin().command(&format!("/plugins/marked/pin?digest={two}")).status, 200);
    serves(&gateway, &version(2), "a pin on the version before puts it back");
}
