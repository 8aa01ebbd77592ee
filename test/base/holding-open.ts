// Opens a state file, adds what it is given, says so, and waits to be killed: node holding-open.ts FILE NAME
import { openDatabase } from '../../src/base/open-database.ts';
import { smallSchema } from './small-schema.ts';

const [file = '', name = ''] = process.argv.slice(2);
const database = openDatabase(file, smallSchema(4));
database.prepare('INSERT INTO thing (name) VALUES (?)').run(name);
await database.settled();
console.log('open');
setInterval(() => {}, 1 << 30);
