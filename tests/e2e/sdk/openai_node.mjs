// The npm package `openai` driven by lines of JSON: one call a line on stdin, one outcome a line on stdout.
//   node openai_node.mjs PACKAGE_DIRECTORY
import { createInterface } from 'node:readline';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(pathToFileURL(process.argv[2] + '/index.js'));
const OpenAI = require('openai');

function names(error) {
  const out = [];
  for (let at = Object.getPrototypeOf(error); at && at !== Object.prototype; at = Object.getPrototypeOf(at))
    out.push(at.constructor.name);
  return out;
}

async function read(answer, wanted, outcome) {
  if (answer[Symbol.asyncIterator] === undefined) {
    outcome.value = answer;
    return;
  }
  for await (const event of answer) {
    outcome.events.push(event);
    if (outcome.events.length === wanted) break; // which aborts the request
  }
}

async function perform(task) {
  const outcome = { events: [], value: null, error: null, bases: [] };
  const recording = (url, init) => {
    outcome.sent = init.body ?? null;
    outcome.retries = Number(new Headers(init.headers).get('x-stainless-retry-count') ?? 0);
    return fetch(url, init);
  };
  const client = new OpenAI({ baseURL: task.base_url, apiKey: task.api_key, maxRetries: task.max_retries,
                              timeout: task.timeout * 1000, fetch: recording });
  const path = task.method.split('.');
  const owner = path.slice(0, -1).reduce((at, name) => at[name], client);
  const begun = performance.now();
  try {
    const call = owner[path.at(-1)](task.args ?? undefined);
    if (task.raw) outcome.received = await (await call.asResponse()).text();
    else await read(await call, task.stop_after, outcome);
  } catch (error) {
    Object.assign(outcome, { error: error.constructor.name, bases: names(error), status: error.status ?? null,
                             code: error.code ?? null, type: error.type ?? null, message: String(error.message),
                             retry_after: error.headers?.get?.('retry-after') ?? null });
  }
  outcome.seconds = (performance.now() - begun) / 1000;
  return outcome;
}

for await (const line of createInterface({ input: process.stdin })) {
  const outcome = await perform(JSON.parse(line));
  process.stdout.write(JSON.stringify(outcome) + '\n');
}
