import { interior, leaf, type ManagementObject } from '../wire/syncml/ddf.ts';
import { MoId } from './identifiers.ts';

/** GwJoin: the window in which devices that no list has may join. Postern's own (docs/gwmo.md). */
export const gwJoin: ManagementObject = {
  id: MoId.GwJoin,
  root: interior(['Get'], 'Window in which devices that no list has may join by their public keys', {
    Minutes: leaf('int', ['Get', 'Replace'], 'Minutes of the next window, 1 to 60'),
    Devices: leaf('int', ['Get', 'Replace'], 'Devices that may join in the next window, 1 to 64'),
    Open: leaf('null', ['Exec'], 'Opens a window. One that is open ends'),
    Close: leaf('null', ['Exec'], 'Closes the window'),
    Left: leaf('int', ['Get'], 'Devices that may join now; 0 while the window is closed'),
    Until: leaf('chr', ['Get'], 'When the window ends, ISO 8601; empty while it is closed'),
    Joined: leaf('chr', ['Get'], 'DevIds of the devices that have joined in this window; JSON'),
  }),
};
