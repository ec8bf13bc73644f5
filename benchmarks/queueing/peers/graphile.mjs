// graphile-worker: makes its tables, enqueues, or works, as graphile.py asks for.
// Arguments: package folder, connection string, what to do, and for a worker where its notes go
// and whether each run is to be told at once.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { writeFileSync, writeSync } from "node:fs";

const [folder, connectionString, what, path, telling] = process.argv.slice(2);
const { Logger, WorkerPreset, makeWorkerUtils, run } = createRequire(`${folder}/`)(
  "graphile-worker",
);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const logger = new Logger(() => () => {});
const tell = (text) => writeSync(1, `${text}\n`);
const monotonic = () => Number(process.hrtime.bigint()) / 1e9;

async function create() {
  const utils = await makeWorkerUtils({ connectionString, logger });
  await utils.migrate();
  await utils.release();
}

async function enqueue() {
  const utils = await makeWorkerUtils({ connectionString, maxPoolSize: 1, logger });
  tell("ready");
  for await (const line of lines) {
    const [how, first, count] = line.split(" ");
    const numbers = Array.from({ length: Number(count) }, (_, index) => Number(first) + index);
    const before = monotonic();
    if (how === "each") {
      for (const number of numbers) await utils.addJob("noop", { number });
    } else {
      await utils.addJobs(
        numbers.map((number) => ({ identifier: "noop", payload: { number } })),
      );
    }
    tell(before);
  }
  await utils.release();
}

async function work() {
  const noted = [];
  const noop = async ({ number }) => {
    noted.push([number, monotonic()]);
    if (telling === "each") tell(noted.length);
  };
  tell("ready");
  await lines.next();
  const worker = {
    connectionString,
    concurrentJobs: 24,
    maxPoolSize: 26,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  };
  const preset = { extends: [WorkerPreset], worker };
  const runner = await run({ preset, taskList: { noop }, noHandleSignals: true, logger });
  let told = 0;
  const timer = setInterval(() => {
    if (telling !== "each" && noted.length !== told) tell((told = noted.length));
  }, 20);
  await lines.next();
  clearInterval(timer);
  await runner.stop();
  writeFileSync(path, JSON.stringify(noted));
}

await { create, enqueue, work }[what]();
process.exit(0);
