import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { readNamedFile } from '../../src/base/named-file.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-named-'));
after(() => rmSync(folder, { recursive: true }));
const path = (name: string) => join(folder, name);
const pipe = path('pipe');
execFileSync('mkfifo', [pipe]);

/** A shell that has opened the pipe for writing when the result resolves, and runs `command` with its output there. */
async function writer(command: string) {
  // Both ends: opening one end alone waits for the other.
  const child = spawn('sh', ['-c', `exec 3<>${pipe}; echo open; ${command}`], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  return child;
}

describe('a file that a person has named', { timeout: 30_000 }, () => {
  test('a file is read whole', () => {
    writeFileSync(path('file'), 'x'.repeat(100_000));
    assert.equal(readNamedFile(path('file')).length, 100_000);
    writeFileSync(path('empty'), '');
    assert.equal(readNamedFile(path('empty'), { takesPipe: true }).length, 0);
  });

  test('what is no file says what it is, and what to do', async () => {
    const socket = path('socket');
    const server = createServer().listen(socket);
    await once(server, 'listening');
    try {
      for (const takesPipe of [false, true])
        for (const [odd, words] of [
          [folder, /^is a folder, not a file; name a file in it$/],
          [socket, /^is a device or a socket, not a file; name a file/],
          ['/dev/zero', /^is a device or a socket, not a file; name a file/],
          [path('none'), /^cannot be read \(ENOENT\)$/],
        ] as const)
          assert.throws(
            () => readNamedFile(odd, { takesPipe }),
            { code: 'configuration', message: words },
            odd,
          );
    } finally {
      server.close();
    }
  });

  test('a file of the wrong size is not read into memory', () => {
    writeFileSync(path('huge'), '');
    truncateSync(path('huge'), 5 * 1024 ** 3);
    assert.throws(
      () => readNamedFile(path('huge')),
      /^PosternError: has more than 16 MiB; is it the right file\?$/,
    );
  });
});

describe('a pipe', { timeout: 30_000 }, () => {
  test('is refused where only files are taken, without a reader or a writer', () => {
    assert.throws(
      () => readNamedFile(pipe),
      /is a pipe, not a file; write its content to a file, and name that/,
    );
  });

  test('is read to its end, also when the writer comes later', async () => {
    const child = spawn('sh', ['-c', `(sleep 0.1; echo one; sleep 0.1; echo two) > ${pipe}`]);
    const ended = once(child, 'close');
    assert.equal(readNamedFile(pipe, { takesPipe: true, within: 20_000 }).toString(), 'one\ntwo\n');
    await ended;
  });

  test('nobody writes to it: the wait has an end', () => {
    assert.throws(
      () => readNamedFile(pipe, { takesPipe: true, within: 50 }),
      /is a pipe, and nobody has written to it in 0\.05 s; write to it, or name a file/,
    );
  });

  for (const [what, command, words] of [
    ['has its other end open and gives nothing', 'read wait', /nobody has written to it in 0\.2 s/],
    ['does not end', 'echo x >&3; read wait', /is a pipe that has not ended in 0\.2 s; close its other end/],
    ['gives more and more', 'exec cat /dev/zero >&3', /is a pipe that has not ended|has more than 16 MiB/],
  ] as const)
    test(`${what}: the wait has an end`, async () => {
      const child = await writer(command);
      const ended = once(child, 'close');
      try {
        assert.throws(() => readNamedFile(pipe, { takesPipe: true, within: 200 }), words);
      } finally {
        child.kill('SIGKILL');
        await ended;
      }
    });
});
