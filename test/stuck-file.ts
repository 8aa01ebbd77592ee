// Loaded before each test file. When all tests of a file have ended and something still keeps its process alive, as after a test
// that ran out of time, the file fails and says what. Without it the whole run would wait for this one process.
import { after } from 'node:test';

/** Time that a process has for its end after its last test, in milliseconds. */
const grace = Number(process.env.POSTERN_TEST_GRACE ?? 30_000);

after(() => {
  setTimeout(() => {
    const kept = process.getActiveResourcesInfo().join(', ');
    console.error(`all tests of ${process.argv[1]} have ended, and this keeps the process alive: ${kept}`);
    process.exit(1);
  }, grace).unref();
});
