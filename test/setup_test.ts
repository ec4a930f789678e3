import assert from "node:assert/strict";
import {
  aptCommands,
  chooseRemedy,
  isOlder,
  machineState,
  parseOsRelease,
  stampText,
  suiteSource,
} from "../src/setup.ts";

const DEB822 = `# a comment before
Types: deb deb-src
# an old snapshot
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`;

Deno.test("parseOsRelease() unquotes values and skips what is no variable", () => {
  const text =
    `PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n# note\n\nID=debian\nVERSION_ID='12'\n`;
  assert.deepEqual(parseOsRelease(text), {
    PRETTY_NAME: "Debian GNU/Linux 12 (bookworm)",
    ID: "debian",
    VERSION_ID: "12",
  });
});

Deno.test("chooseRemedy() takes backports on Debian bookworm alone", () => {
  const apt = (os: Record<string, string>) => chooseRemedy(os, true);
  assert.deepEqual(apt({ ID: "debian", VERSION_CODENAME: "bookworm" }), {
    kind: "apt",
    suite: "bookworm-backports",
  });
  const own = { kind: "apt", suite: undefined };
  assert.deepEqual(apt({ ID: "debian", VERSION_CODENAME: "trixie" }), own);
  assert.deepEqual(apt({ ID: "ubuntu", ID_LIKE: "debian", VERSION_CODENAME: "jammy" }), own);
  // Its mirror has no such suite.
  assert.deepEqual(apt({ ID: "raspbian", ID_LIKE: "debian", VERSION_CODENAME: "bookworm" }), own);
});

Deno.test("chooseRemedy() without apt names the distribution's command", () => {
  const command = (os: Record<string, string>) => {
    const remedy = chooseRemedy(os, false);
    return remedy.kind === "tell" ? remedy.command : remedy;
  };
  assert.match(String(command({ ID: "fedora" })), /^sudo dnf install .*mesa-vulkan-drivers/);
  assert.match(
    String(command({ ID: "rocky", ID_LIKE: "rhel centos fedora" })),
    /^sudo dnf install/,
  );
  assert.match(String(command({ ID: "manjaro", ID_LIKE: "arch" })), /^sudo pacman -S/);
  assert.match(String(command({ ID: "opensuse-leap", ID_LIKE: "suse opensuse" })), /^sudo zypper/);
  assert.match(String(command({})), /install the Vulkan loader and Mesa's Vulkan drivers/);
});

Deno.test("suiteSource() derives a stanza with the same mirror and keyring", () => {
  assert.deepEqual(suiteSource([{ name: "debian.sources", text: DEB822 }], "bookworm-backports"), {
    name: "wgslide.sources",
    text: "types: deb\nuris: http://mirror.example/debian\nsuites: bookworm-backports\n" +
      "components: main\nsigned-by: /usr/share/keyrings/debian-archive-keyring.gpg\n",
  });
});

Deno.test("suiteSource() keeps a key that is written into the stanza", () => {
  const text = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n" +
    "Components: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF\n";
  const source = suiteSource([{ name: "debian.sources", text }], "bookworm-backports");
  assert.ok(typeof source === "object");
  assert.match(source.text, /signed-by: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n \.\n mQINBF\n$/);
});

Deno.test("suiteSource() derives a line with the same options", () => {
  const text = "deb-src http://source.example/debian bookworm main\n" +
    "deb cdrom:[Debian 12]/ bookworm main\n" +
    "deb http://security.example/debian-security bookworm-security main\n" +
    "deb [arch=amd64 signed-by=/etc/apt/keyrings/a.gpg] https://mirror.example/debian bookworm main contrib # ours\n" +
    "deb http://second.example/debian bookworm main\n";
  assert.deepEqual(suiteSource([{ name: "sources.list", text }], "bookworm-backports"), {
    name: "wgslide.list",
    text:
      "deb [arch=amd64 signed-by=/etc/apt/keyrings/a.gpg] https://mirror.example/debian bookworm-backports main\n",
  });
});

Deno.test("suiteSource() adds nothing where the suite is there already", () => {
  const list = "deb http://mirror.example/debian bookworm-backports main\n";
  const stanza = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\n";
  for (
    const file of [{ name: "b.list", text: list }, { name: "b.sources", text: stanza }]
  ) {
    const files = [{ name: "debian.sources", text: DEB822 }, file];
    assert.equal(suiteSource(files, "bookworm-backports"), "present");
  }
});

Deno.test("suiteSource() overlooks what is disabled, commented out or of another release", () => {
  const files = [
    { name: "sources.list", text: "# deb http://mirror.example/debian bookworm main\n" },
    { name: "a.sources", text: DEB822.replaceAll("Types:", "Enabled: no\nTypes:") },
    { name: "b.list", text: "deb http://mirror.example/debian trixie main\n" },
    { name: "c.save", text: "deb http://mirror.example/debian bookworm main\n" },
  ];
  assert.equal(suiteSource(files, "bookworm-backports"), undefined);
});

Deno.test("aptCommands() says what to add first, without a mirror's password", () => {
  const text = "deb https://me:secret@mirror.example/debian bookworm-backports main\n";
  const commands = aptCommands("bookworm-backports", { name: "wgslide.list", text });
  assert.equal(
    commands,
    "echo 'deb https://USER:PASSWORD@mirror.example/debian bookworm-backports main' | " +
      "sudo tee /etc/apt/sources.list.d/bookworm-backports.list &&\n" +
      "  sudo apt-get update &&\n" +
      "  sudo apt-get install -y -t bookworm-backports libvulkan1 mesa-vulkan-drivers",
  );
  assert.equal(
    aptCommands(undefined, undefined),
    "sudo apt-get update &&\n  sudo apt-get install -y libvulkan1 mesa-vulkan-drivers",
  );
});

Deno.test("isOlder() compares versions of packages as numbers", () => {
  assert.equal(isOlder("22.3.6-1+deb12u1", "23.2"), true);
  assert.equal(isOlder("23.1.9", "23.2"), true);
  assert.equal(isOlder("23.2.1-1ubuntu3.1~22.04.2", "23.2"), false);
  assert.equal(isOlder("25.0.7-2~bpo12+1", "23.2"), false);
  assert.equal(isOlder("23.10.0", "23.2"), false);
});

Deno.test("stampText() differs with every line of the state and with the outcome", () => {
  const state = ["lvp_icd.json 135 1", "libvulkan_lvp.so 10 1"];
  const texts = [
    stampText(state, true),
    stampText(state, false),
    stampText(["lvp_icd.json 135 2", "libvulkan_lvp.so 10 1"], true),
    stampText(["lvp_icd.json 135 1", "libvulkan_lvp.so missing"], true),
    stampText(["lvp_icd.json 135 1"], true),
  ];
  assert.equal(new Set(texts).size, texts.length);
  assert.equal(texts[0], stampText([...state], true));
});

Deno.test("machineState() notices a driver's manifest or library that changes or goes", {
  ignore: Deno.build.os !== "linux",
}, async () => {
  const folder = await Deno.makeTempDir();
  try {
    const manifest = `${folder}/driver.json`;
    const library = `${folder}/libdriver.so`;
    const look = () =>
      machineState((name) => name === "VK_DRIVER_FILES" ? manifest : undefined).join("\n");
    await Deno.writeTextFile(manifest, `{"ICD": {"library_path": "./libdriver.so"}}`);
    const states = [look()];
    await Deno.writeTextFile(library, "one");
    states.push(look());
    assert.equal(look(), states.at(-1));
    await Deno.writeTextFile(library, "longer");
    states.push(look());
    await Deno.utime(library, 1, 1);
    states.push(look());
    await Deno.remove(manifest);
    states.push(look());
    assert.equal(new Set(states).size, states.length);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
