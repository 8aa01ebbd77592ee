import type { Right } from '../../dm/acl.ts';

/**
 * What a DM server, or a child gateway, is to a gateway: a server with an account here, a server in `tunnel.servers`, an attached
 * child gateway. A server may be both of the first two.
 */
export const standings = ['account', 'tunnel', 'child'] as const;
export type Standing = (typeof standings)[number];

/**
 * What an act needs besides the standing. A right: the ACL of the gateway's tree (OMA-TS-DM_TND) gives it at the object of the act.
 * `policy`: the device is one that may use the tunnel. `free`: it is behind this child, or nowhere else. `behind`: it is behind
 * this child. `own`: this child was given the order.
 */
export type Rule = 'yes' | Right | 'policy' | 'free' | 'behind' | 'own';

/**
 * What the ACL is asked at, as a node of the gateway's tree: the record of a device, by DevId; a group or an image, by the name of its
 * node; the account of a server, by ServerID.
 */
export type ObjectKind = 'device' | 'group' | 'image' | 'account';

export interface Act extends Readonly<Partial<Record<Standing, Rule>>> {
  readonly at?: ObjectKind;
}

/** Acts of DM servers. What is not in the table is for nobody. docs/security.md has the same table. */
export const serverActs = {
  'have-sessions': { account: 'yes' },
  'wake-gateway': { account: 'yes' },
  'wake-device': { at: 'device', account: 'Exec', tunnel: 'policy' },
  'manage-device': { at: 'device', account: 'Exec' },
  'choose-device': { at: 'device', account: 'Get' },
  'use-group': { at: 'group', account: 'Get' },
  'use-image': { at: 'image', account: 'Get' },
  'replace-account': { at: 'account', account: 'Replace' },
  'get-packages': { tunnel: 'yes' },
} as const satisfies Record<string, Act>;
export type ServerAct = keyof typeof serverActs;

/** Acts of child gateways, of the same table. `ChildScope` answers for them. */
export const childActs = {
  'send-packages': { child: 'free' },
  'report-attach': { child: 'free' },
  'report-presence': { child: 'behind' },
  'report-detach': { child: 'behind' },
  'report-fault': { child: 'behind' },
  'report-result': { child: 'own' },
} as const satisfies Record<string, Act>;
