import { interior, leaf, type ManagementObject } from '../wire/syncml/ddf.ts';
import { MoId } from './identifiers.ts';

/** GwOwner: a reset of the gateway, and the end of the relation between an enrolled gateway and its owner. Postern's own (docs/gwmo.md). */
export const gwOwner: ManagementObject = {
  id: MoId.GwOwner,
  root: interior(['Get'], 'To whom the gateway belongs', {
    Server: leaf('chr', ['Get'], 'ServerID of the owner: the DM server that enrolled the gateway'),
    Reset: leaf('chr', ['Exec'], 'Deletes the state of the gateway; the data is its ID'),
    Transfer: leaf('chr', ['Exec'], 'Passes the gateway to the owner that the data names; JSON'),
    Withdraw: leaf('null', ['Exec'], 'Takes a transfer back, until the gateway has its next owner'),
    Problem: leaf('chr', ['Get'], 'What keeps a transfer from its end; empty when nothing does'),
    Decommission: leaf(
      'null',
      ['Exec'],
      'Ends the gateway: it revokes, wipes and tells, and serves nobody any more',
    ),
  }),
};
