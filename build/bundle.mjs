// Bundles each party to one file in dist/, and reports what each dependency weighs in it. Fails when the gateway exceeds its
// budget. `--quiet` leaves the report to dist/size-report.txt; `--write` records the gateway's size.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { publish } from './figure-pages.ts';
import { single, today } from './figures.ts';

const { values: flags } = parseArgs({ options: { quiet: { type: 'boolean' }, write: { type: 'boolean' } } });
const root = fileURLToPath(new URL('..', import.meta.url));
const { version } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));

/** Bytes that the gateway may have. A trivial program on coap, cbor-x and mqtt has 480 KB, 142 KB gzipped. */
const budget = { minified: 700_000, gzipped: 220_000 };
/** Packages that belong to other parties, and must not slip into the gateway. */
const strangers = ['aedes', 'coap', 'coap-packet'];

const bundles = {
  postern: ['gateway', 'launch', 'update', 'provision', 'status', 'devices', 'ddf'],
  'postern-headend': ['headend'],
  'postern-device': ['device'],
  'postern-demo': ['demo', 'gateway', 'status', 'devices', 'ddf', 'headend', 'device'],
};

/**
 * Code of dependencies that no party can reach: mqtt brings SOCKS proxies, a tenth of the gateway's bundle, which no
 * configuration here offers, timers for browsers, and a copy of Node's streams for other runtimes and early versions. What
 * stands in for the first says so when it is used; the second is looked at when mqtt loads, and used in browsers alone; in
 * place of the third are Node's own streams, as its own switch READABLE_STREAM=disable has it.
 */
const leftOut = {
  socks: "module.exports = new Proxy({}, { get() { throw new Error('SOCKS is not in this bundle'); } });",
  'worker-timers': 'module.exports = {};',
  'readable-stream': "module.exports = require('node:stream');",
};
/**
 * Modules of Node that are loaded when something of them is used, and not with the program: HTTP and TLS are a fifth of the time
 * that a start takes, and with any of these loaded no start-up snapshot can be made. Nothing here may extend a class of theirs
 * while it is loaded.
 */
const late = {
  name: 'late',
  setup(context) {
    context.onResolve({ filter: /^(node:)?(http|https|sqlite|tls)$/ }, ({ path }) => ({
      path: path.replace(/^(node:)?/, 'node:'),
      namespace: 'late',
    }));
    context.onLoad({ filter: /.*/, namespace: 'late' }, ({ path }) => {
      const names = JSON.stringify(Object.keys(process.getBuiltinModule(path)));
      return {
        contents: `for (const name of ${names}) Object.defineProperty(exports, name, { enumerable: true, get: () => process.getBuiltinModule('${path}')[name] });`,
      };
    });
  },
};

const leaveOut = {
  name: 'leave-out',
  setup(context) {
    context.onResolve({ filter: new RegExp(`^(${Object.keys(leftOut).join('|')})$`) }, ({ path }) => ({
      path,
      namespace: 'left-out',
    }));
    context.onLoad({ filter: /.*/, namespace: 'left-out' }, ({ path }) => ({ contents: leftOut[path] }));
  },
};

const imports = (commands) => [
  "import { runCli } from './cli/runner.ts';",
  ...commands.map((name) => `import { ${name} } from './cli/${name}.ts';`),
];
const running = (commands) =>
  `runCli({ ${commands.map((name) => `${name}: async () => ${name}`).join(', ')} }, process.argv.slice(2))`;

/** What all bundles have in common. */
const options = (name, lines) => ({
  stdin: { contents: lines.join('\n'), resolveDir: `${root}src`, sourcefile: `${name}.ts`, loader: 'ts' },
  absWorkingDir: root,
  bundle: true,
  minify: true,
  platform: 'node',
  target: 'node24',
  plugins: [leaveOut, late],
  legalComments: 'linked',
  define: { 'process.env.POSTERN_VERSION': JSON.stringify(version) },
  logLevel: 'warning',
});

const kilobytes = (bytes) => `${(bytes / 1000).toFixed(1).padStart(7)} KB`;

/** Bytes in the output by package; our own code is `src`. */
function weights({ inputs }) {
  const sums = new Map();
  for (const [path, { bytesInOutput }] of Object.entries(inputs)) {
    const found = /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path);
    const name = found ? found[1] : 'src';
    sums.set(name, (sums.get(name) ?? 0) + bytesInOutput);
  }
  return [...sums].filter(([, bytes]) => bytes > 0).sort(([, a], [, b]) => b - a);
}

const report = [];
let failed = false;
let gatewaySizes;
for (const [name, commands] of Object.entries(bundles)) {
  const outfile = `dist/${name}.mjs`;
  const { metafile } = await build({
    ...options(name, [...imports(commands), `await ${running(commands)};`]),
    outfile,
    format: 'esm',
    metafile: true,
    // CommonJS packages call require and read __filename.
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url); const __filename = import.meta.filename; const __dirname = import.meta.dirname;",
    },
  });
  const code = readFileSync(`${root}${outfile}`);
  const gzipped = gzipSync(code, { level: 9 }).length;
  const parts = weights(metafile.outputs[outfile]);
  report.push(`${outfile}: ${kilobytes(code.length).trim()} minified, ${kilobytes(gzipped).trim()} gzipped`);
  for (const [part, bytes] of parts) report.push(`  ${kilobytes(bytes)}  ${part}`);
  if (name !== 'postern') continue;
  const size = (what, bytes, limit) => single(what, 'KB', bytes / 1000, { atMost: limit / 1000 });
  gatewaySizes = {
    minified: size('Gateway bundle, minified', code.length, budget.minified),
    gzipped: size('Gateway bundle, gzipped', gzipped, budget.gzipped),
  };
  for (const stranger of strangers.filter((one) => parts.some(([part]) => part === one))) {
    failed = true;
    console.error(`${outfile} holds ${stranger}, which belongs to another party`);
  }
  if (code.length > budget.minified || gzipped > budget.gzipped) {
    failed = true;
    console.error(
      `${outfile} passes its budget of ${kilobytes(budget.minified).trim()} and ${kilobytes(budget.gzipped).trim()} gzipped`,
    );
  }
}

/**
 * The gateway once more, for the start-up snapshot of firmware images: loaded, it does nothing until the snapshot is started
 * from. While it is loaded no time passes and the process has always the same number, which libraries keep, so that a snapshot
 * comes out the same each time.
 */
await build({
  ...options('postern-snapshot', [
    "import { startupSnapshot } from 'node:v8';",
    ...imports(bundles.postern),
    `startupSnapshot.setDeserializeMainFunction(() => void ${running(bundles.postern)});`,
  ]),
  outfile: 'dist/postern-snapshot.cjs',
  format: 'cjs',
  banner: {
    js: "const __clocks = [Date.now, process.hrtime.bigint]; Date.now = () => 0; process.hrtime.bigint = () => 0n; Object.defineProperty(process, 'pid', { value: 1, configurable: true, enumerable: true });",
  },
  footer: { js: '[Date.now, process.hrtime.bigint] = __clocks; delete process.pid;' },
});

writeFileSync(`${root}dist/size-report.txt`, `${report.join('\n')}\n`);
if (!flags.quiet || failed) console.log(report.join('\n'));
if (flags.write) {
  const how = '`npm run build`: dist/postern.mjs, all that a gateway needs besides Node.';
  publish('bundle', { title: 'Bundle', date: today(), how, figures: gatewaySizes }, true);
}
if (failed) process.exitCode = 1;
