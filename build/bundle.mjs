// Bundles each party to one file in dist/, with its bill of materials, and reports what each dependency weighs in it. Fails when the gateway exceeds its
// budget. `--quiet` leaves the report to dist/size-report.txt; `--write` records the gateway's size.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { publish } from './figure-pages.ts';
import { single, today } from './figures.ts';
import { writeMinified } from './minified.ts';
import { byFloor } from './module-order.ts';
import { leaveCborPlain } from './plain-cbor.ts';
import { packagesIn, sbomOf } from './sbom.ts';
import { packRegistry } from './with-registry.ts';
import { leaveLogsOut } from './without-logs.ts';
import { leaveProseOut } from './without-prose.ts';
import { leaveTablesOut } from './without-tables.ts';

const { values: flags } = parseArgs({ options: { quiet: { type: 'boolean' }, write: { type: 'boolean' } } });
const root = fileURLToPath(new URL('..', import.meta.url));
const { version } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));

/**
 * Most bytes of the gateway's bundle. A trivial program with coap, cbor-x and mqtt has 480 KB, 142 KB gzipped. It was 760 and
 * 250 KB before DTLS, and 850 and 270 KB before telemetry, the names of LwM2M objects and clients of other makers
 * (docs/architecture.md, "What the bundle weighs").
 */
const budget = { minified: 920_000, gzipped: 310_000 };
/** Packages of other parties, which must not be in the gateway's bundle. */
const strangers = ['aedes', 'coap', 'coap-packet', 'node-dtls-client', '@peculiar/x509'];

const bundles = {
  postern: ['gateway', 'launch', 'update', 'backup', 'restore', 'status', 'devices', 'reset', 'join'],
  'postern-headend': ['headend', 'account'],
  // Only boards are provisioned: `--check` of a board's configuration at a desk. The board itself has it in its snapshot.
  'postern-board': ['provision'],
  'postern-device': ['device'],
  'postern-demo': ['demo', 'gateway', 'status', 'devices', 'ddf', 'headend', 'device'],
};

/**
 * Modules of mqtt and of its dependencies that no party can reach, with the code that replaces them:
 * - `./socks` of mqtt, for SOCKS proxies, would be a tenth of the gateway's bundle with the package behind it, and no configuration
 *   here offers it. The replacement throws when it is used.
 * - `mqtt` exports all its parts. Two of them are used here.
 * - `./is-browser` of mqtt looks at what only browsers have. The replacement says that this is none.
 * - `./get-timer` of mqtt chooses timers of browsers. The replacement has Node's.
 * - `readable-stream` is a copy of Node's streams for other runtimes and early versions. The replacement is Node's own
 *   streams, which the package itself uses with READABLE_STREAM=disable.
 * - `debug` prints what mqtt does, for developers of mqtt. The replacement prints nothing.
 * - `cbor-extract` is a native library that speeds up cbor-x. No bundle has it, and cbor-x goes on without it.
 * - `bufferutil` is one that speeds up WebSockets. Without the replacement each start would search the disk for it.
 * - `node-aead-crypto` is a native library for versions of Node without AES-CCM. node-dtls-client never asks for it here.
 * - `./wx` and `./ali` of mqtt connect the apps of two messengers. The replacement throws when it is used.
 * - `./lib/websocket-server` and `./lib/subprotocol` of ws are for servers, and nothing here is one. `permessage-deflate`
 *   compresses, which is switched off, and `./extension` reads what such extensions say. `./event-target` gives a WebSocket the
 *   interface of browsers; mqtt uses it as a stream of Node.
 * - `bl` is a stream of buffers, of which mqtt-packet uses the list alone.
 * - `process-nextick-args` is `process` itself where Node is not of 2015.
 * - `../../package.json` is mqtt's own, of which it uses the version.
 * - `./topic-alias-send` of mqtt holds the topic aliases that a client sends. It is made when the broker offers aliases, and no
 *   party uses any. The replacement is an empty class.
 * - `./generate` of mqtt-packet gathers a packet in memory. mqtt writes packets to streams.
 * - `../BufferedDuplex` of mqtt is a stream over the WebSocket of a browser. Nothing makes one here.
 * - `rfdc/default` copies each packet with its payload for the store of unacknowledged packets, since a topic alias is taken out of the
 *   copy. No party uses aliases. The replacement copies the packet alone.
 */
const same = (names, code) => Object.fromEntries(names.map((name) => [name, code]));
const uncompressed = "module.exports = { extensionName: 'permessage-deflate' };";
const leftOut = {
  './socks': "module.exports = () => { throw new Error('SOCKS is not in this bundle'); };",
  mqtt: "exports.connect = require('mqtt/lib/connect/index').default; exports.ReasonCodes = require('mqtt/lib/handlers/ack').ReasonCodes;",
  ...same(
    ['./is-browser', '../is-browser'],
    'exports.__esModule = true; exports.default = exports.isWebWorker = exports.isReactNativeBrowser = false;',
  ),
  './get-timer':
    'exports.__esModule = true; exports.default = () => ({ set: (work, every) => setInterval(work, every), clear: (timer) => clearInterval(timer) });',
  debug:
    'module.exports = () => Object.assign(() => {}, { enabled: false, extend: module.exports }); module.exports.default = module.exports;',
  'cbor-extract': "throw new Error('cbor-extract is not in this bundle');",
  'node-aead-crypto': "throw new Error('node-aead-crypto is not in this bundle');",
  bufferutil: "throw new Error('bufferutil is not in this bundle');",
  ...same(['./permessage-deflate', './lib/permessage-deflate'], uncompressed),
  ...same(['./wx', './ali'], "throw new Error('it is not in this bundle');"),
  ...same(['./lib/websocket-server', './lib/subprotocol', './generate'], 'module.exports = undefined;'),
  ...same(['./extension', './lib/extension'], 'module.exports = {};'),
  './event-target': 'module.exports = { EventTarget: {} };',
  bl: "module.exports = require('bl/BufferList');",
  'process-nextick-args': 'module.exports = process;',
  '../../package.json': 'exports.version = "bundled";',
  ...same(
    ['./topic-alias-send', '../topic-alias-send'],
    'exports.__esModule = true; exports.default = class {};',
  ),
  '../BufferedDuplex': 'module.exports = {};',
  'rfdc/default': 'module.exports = (packet) => ({ ...packet });',
  'readable-stream': "module.exports = require('node:stream');",
};
/**
 * Loads some modules of Node at their first use and not when the program is loaded. Loading HTTP and TLS takes a fifth of the
 * time of a start, and no start-up snapshot can be made when HTTP, TLS or SQLite is loaded. Therefore no code may extend a class
 * of these modules at its top level. Each of them takes memory: TLS 2.7 MB, the others up to one.
 */
const late = {
  name: 'late',
  setup(context) {
    context.onResolve(
      { filter: /^(node:)?(child_process|http|https|sqlite|tls|worker_threads|zlib)$/ },
      ({ path }) => ({
        path: path.replace(/^(node:)?/, 'node:'),
        namespace: 'late',
      }),
    );
    context.onLoad({ filter: /.*/, namespace: 'late' }, ({ path }) => {
      // esbuild copies what a module exports when it is required, and keeps its prototype.
      return {
        contents: `module.exports = Object.create(new Proxy({}, { get: (_, name) => name === '__esModule' ? undefined : process.getBuiltinModule('${path}')[name] }));`,
      };
    });
  },
};

/** Replaces the modules in `leftOut`. */
const leaveOut = {
  name: 'leave-out',
  setup(context) {
    context.onResolve(
      { filter: new RegExp(`^(${Object.keys(leftOut).map(RegExp.escape).join('|')})$`) },
      ({ path, importer }) =>
        // The package coap has such streams, and other packages have files of these names.
        /^\.|^bl$/.test(path) && !/node_modules\/(mqtt|mqtt-packet|ws)\//.test(importer)
          ? undefined
          : { path, namespace: 'left-out' },
    );
    context.onLoad({ filter: /.*/, namespace: 'left-out' }, ({ path }) => ({
      contents: leftOut[path],
      resolveDir: root,
    }));
  },
};

const imports = (commands) => [
  "import { runCli } from './cli/runner.ts';",
  ...commands.map((name) => `import { ${name} } from './cli/${name}.ts';`),
];
const running = (commands) =>
  `runCli({ ${commands.map((name) => `${name}: async () => ${name}`).join(', ')} }, process.argv.slice(2))`;

/** Options of esbuild for a bundle with these commands. */
const options = (name, lines, commands) => ({
  stdin: { contents: lines.join('\n'), resolveDir: `${root}src`, sourcefile: `${name}.ts`, loader: 'ts' },
  absWorkingDir: root,
  bundle: true,
  minify: true,
  platform: 'node',
  target: 'node24',
  // Node 24 has them, which esbuild does not know: it would write each `using` as a try, a catch and a finally.
  supported: { using: true },
  plugins: [
    leaveOut,
    late,
    leaveLogsOut,
    leaveCborPlain,
    packRegistry,
    leaveProseOut(commands.includes('ddf') ? ['described'] : ['described', 'leaf', 'interior']),
    ...(commands === bundles.postern ? [leaveTablesOut] : []),
  ],
  legalComments: 'linked',
  define: { 'process.env.POSTERN_VERSION': JSON.stringify(version) },
  logLevel: 'warning',
});

const kilobytes = (bytes) => `${(bytes / 1000).toFixed(1).padStart(7)} KB`;

/** Bytes in the output of esbuild by package, the largest first. Postern's own code is `src`. */
function weights({ inputs }) {
  const sums = new Map();
  for (const [path, { bytesInOutput }] of Object.entries(inputs)) {
    const found = /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path);
    const name = found ? found[1] : 'src';
    sums.set(name, (sums.get(name) ?? 0) + bytesInOutput);
  }
  return [...sums].filter(([, bytes]) => bytes > 0).sort(([, a], [, b]) => b - a);
}

/** Postern's own modules in an output of esbuild, in the order in which they compress best. */
const ownModules = ({ inputs }) =>
  byFloor(Object.keys(inputs).filter((path) => /^src\/.*\//.test(path) && inputs[path].bytesInOutput > 0));

/**
 * Makes a bundle of these commands.
 * @param first modules that the bundle has in any case, in the order that it shall have them in
 */
const esm = (name, commands, outfile, first = []) =>
  build({
    ...options(
      name,
      [
        ...first.map((path) => `import '${path.replace(/^src/, '.')}';`),
        ...imports(commands),
        `await ${running(commands)};`,
      ],
      commands,
    ),
    outfile,
    format: 'esm',
    metafile: true,
    write: false,
    // CommonJS packages call require and read __filename.
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url); const __filename = import.meta.filename; const __dirname = import.meta.dirname;",
    },
  });

mkdirSync(`${root}dist`, { recursive: true });
const report = [];
let failed = false;
let gatewaySizes;
for (const [name, commands] of Object.entries(bundles)) {
  const outfile = `dist/${name}.mjs`;
  let { metafile, outputFiles } = await esm(name, commands, outfile);
  if (name === 'postern')
    ({ metafile, outputFiles } = await esm(name, commands, outfile, ownModules(metafile.outputs[outfile])));
  // Only the gateway is loaded over slow links, and onto small boards. The pass takes seconds.
  for (const { path, text } of outputFiles)
    if (name === 'postern' && path.endsWith('.mjs')) await writeMinified(text, path);
    else writeFileSync(path, text);
  const code = readFileSync(`${root}${outfile}`);
  const gzipped = gzipSync(code, { level: 9 }).length;
  const parts = weights(metafile.outputs[outfile]);
  const packages = packagesIn(metafile.outputs[outfile].inputs, root);
  const sbom = sbomOf({ file: `${name}.mjs`, version, code, packages });
  writeFileSync(`${root}dist/${name}.cdx.json`, `${JSON.stringify(sbom, null, 2)}\n`);
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
    console.error(`${outfile} contains ${stranger}, a package of another party`);
  }
  if (code.length > budget.minified || gzipped > budget.gzipped) {
    failed = true;
    console.error(
      `${outfile} exceeds its budget of ${kilobytes(budget.minified).trim()} and ${kilobytes(budget.gzipped).trim()} gzipped`,
    );
  }
}

/**
 * The gateway's bundle for the start-up snapshot of firmware images. Loading it runs nothing; the command runs when a process
 * starts from the snapshot. Libraries keep the time and the process ID at which they were loaded. Therefore both are constant
 * while the bundle is loaded, so that every snapshot is the same.
 */
const onBoard = [...bundles.postern, ...bundles['postern-board']];
await build({
  ...options(
    'postern-snapshot',
    [
      "import { startupSnapshot } from 'node:v8';",
      ...imports(onBoard),
      `startupSnapshot.setDeserializeMainFunction(() => void ${running(onBoard)});`,
    ],
    bundles.postern,
  ),
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
