import assert from "node:assert/strict";
import { startLog } from "../src/log.ts";
import type { LogLevel } from "../src/config.ts";

function scene(level: LogLevel) {
  const shown: string[] = [];
  const log = startLog(level, (line) => shown.push(line));
  return { log, shown };
}

const SAID = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) (.*)$/s;

Deno.test("startLog() shows what is at its level and above, and keeps all", () => {
  for (const [level, count] of [["debug", 4], ["info", 3], ["warning", 2], ["error", 1]] as const) {
    const { log, shown } = scene(level);
    log.debug("one");
    log.info("two");
    log.warn("three");
    log.error("four");
    const all = log.text().split("\n").slice(0, -1);
    assert.deepEqual(shown, all.slice(4 - count));
    assert.deepEqual(all.map((line) => SAID.exec(line)?.slice(1)), [
      ["DEBUG", "one"],
      ["INFO", "two"],
      ["WARNING", "three"],
      ["ERROR", "four"],
    ]);
  }
});

Deno.test("startLog() leaves braces, percents and quotes of a message as they are", () => {
  const { log, shown } = scene("info");
  const messages = [
    "{}",
    "{message}",
    "{{a}}",
    'no slide in "{1}.svs"',
    "%s %d 100 %",
    "",
    "\\u0041",
  ];
  for (const message of messages) log.info(message);
  assert.deepEqual(shown.map((line) => SAID.exec(line)?.[2]), messages);
});

Deno.test("startLog() makes one line of a message of several", () => {
  const { log, shown } = scene("info");
  log.info("one\ntwo\r\nthree\x1b[31m");
  assert.equal(shown.length, 1);
  assert.match(shown[0]!, / INFO one\\ntwo\\r\\nthree\\x1b\[31m$/);
});

Deno.test("startLog() keeps the last lines of many", () => {
  const { log } = scene("error");
  for (let i = 0; i < 25_000; i++) log.info(`line ${i}`);
  const kept = log.text().split("\n").slice(0, -1);
  assert.ok(kept.length >= 9000 && kept.length <= 10_000, `${kept.length}`);
  assert.match(kept.at(-1)!, /line 24999$/);
  const [first] = kept;
  assert.match(first!, new RegExp(`line ${25_000 - kept.length}$`));
});

Deno.test("startLog() begins anew where it is called again", () => {
  const first = scene("info");
  first.log.info("old");
  const second = scene("info");
  second.log.info("new");
  assert.deepEqual([first.shown.length, second.shown.length], [1, 1]);
  assert.doesNotMatch(second.log.text(), /old/);
});
