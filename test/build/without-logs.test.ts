import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { withoutLogs } from '../../build/without-logs.ts';

const root = new URL('../..', import.meta.url).pathname;

test('what is logged goes with its texts, and what else happens stays', async () => {
  const source = `class A {
    a(packet) {
      debug('parse %o', packet);
      if (packet.wrong) { this.log('wrong %s', packet.id); this.emit('error', new Error('wrong')); }
      else client.log('right');
      for (const one of packet.all) this.client['log'](one.name);
      debug('took %d', this.take());
      return packet.kind;
    }
    log=debug || print;
  }`;
  assert.equal(
    (await withoutLogs(source)).replaceAll(/\s+/g, ' '),
    `class A { a(packet) { if (packet.wrong) this.emit("error", new Error("wrong")); for (const one of packet.all) ;
 this.take(); return packet.kind; } log=debug || print; }`.replaceAll(/\s+/g, ' '),
  );
});

test('no file of mqtt and mqtt-packet logs anything in a bundle', async () => {
  // The commands and tests of the packages are in no bundle.
  const files = globSync('node_modules/{mqtt/build/lib/**/*,mqtt-packet/*}.js', { cwd: root });
  assert.ok(files.length > 30, String(files.length));
  for (const file of files.filter((one) => !/\/test\w*\.js$/.test(one))) {
    const source = readFileSync(`${root}/${file}`, 'utf8');
    assert.doesNotMatch(await withoutLogs(source), /\b(debug|log)("\])?\(/, file);
  }
});

test('the gateway gives mqtt no log, and its bundle has no texts of one', () => {
  const settings = globSync('src/wire/tunnel/*.ts', { cwd: root }).map((file) =>
    readFileSync(`${root}/${file}`, 'utf8'),
  );
  assert.ok(settings.some((source) => source.includes('IClientOptions')));
  for (const source of settings) assert.doesNotMatch(source, /\blog:/);
  const bundle = readFileSync(`${root}/dist/postern.mjs`, 'utf8');
  assert.match(bundle, /connack timeout/);
  assert.doesNotMatch(bundle, /MqttClient ::|_parsePublish: /);
});
