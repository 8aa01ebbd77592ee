import { type Acl, allows, parseAcl, type Right, withoutServer, withServer } from './acl.ts';
import type { AclStore } from './node-store.ts';
import { UndoableMap } from './undoable-map.ts';
import { type NodePath, nodeUri } from './uri.ts';

/**
 * The ACLs of a tree (OMA DM tree and description 1.2.1, section 7.7.1). A node without an ACL of its own inherits that
 * of the nearest node above. Within a level, changes can be undone; without one, they are written at once.
 */
export class TreeAcls {
  readonly #store: AclStore;
  /** Own ACLs as text, by URI of the node. */
  readonly #own = new UndoableMap<string>();

  constructor(store: AclStore) {
    this.#store = store;
    for (const [uri, acl] of store.load()) this.#own.set(uri, acl);
  }

  /** The node's own ACL as text. Undefined when the node inherits. */
  own(path: NodePath): string | undefined {
    return this.#own.get(nodeUri(path));
  }

  /** Whether this server has the right at this node, by its own ACL or an inherited one. */
  permits(path: NodePath, right: Right, serverId: string): boolean {
    return allows(this.#effective(path), right, serverId);
  }

  /** Adds rights of a server to the ACL that counts for a node. Writes nothing when the server has them. */
  grant(path: NodePath, added: readonly Right[], serverId: string): void {
    const acl = this.#effective(path);
    if (!added.every((right) => allows(acl, right, serverId)))
      this.set(path, withServer(acl, added, serverId));
  }

  /** Sets the node's own ACL. Without an ACL the node inherits. */
  set(path: NodePath, acl: string | undefined): void {
    this.#set(nodeUri(path), acl);
  }

  /** Moves the ACLs of a renamed node and of all nodes below it. */
  move(from: NodePath, to: NodePath): void {
    for (const uri of this.#urisFrom(from)) {
      this.#set(nodeUri(to) + uri.slice(nodeUri(from).length), this.#own.get(uri));
      this.#set(uri, undefined);
    }
  }

  /** Removes the ACLs of a deleted node and of all nodes below it. */
  drop(path: NodePath): void {
    for (const uri of this.#urisFrom(path)) this.#set(uri, undefined);
  }

  /** Removes a server from all ACLs (section 7.7.1.4). */
  forgetServer(serverId: string): void {
    for (const uri of [...this.#own.keys()]) {
      const acl = this.#own.get(uri);
      if (acl === undefined) continue;
      const left = withoutServer(acl, serverId);
      if (left !== acl) this.#set(uri, left === '' && uri !== '.' ? undefined : left);
    }
  }

  /** Opens a level of changes. Levels nest. */
  begin(): void {
    this.#own.begin();
  }

  /** Closes the innermost level. The outermost level writes its changes to the store. */
  commit(): void {
    const { keys, undo } = this.#own.commit();
    if (keys.length > 0) this.#store.apply(new Map(keys.map((uri) => [uri, this.#own.get(uri)])), undo);
  }

  /** Closes the innermost level and undoes its changes. */
  rollback(): void {
    this.#own.rollback();
  }

  /** The ACL that counts for a node: its own or the nearest one above. */
  #effective(path: NodePath): Acl {
    for (let length = path.length; length >= 0; length--) {
      const own = this.own(path.slice(0, length));
      if (own !== undefined) return parseAcl(own);
    }
    return new Map();
  }

  /** URIs of the ACLs of a node and of all nodes below it. */
  #urisFrom(path: NodePath): string[] {
    const root = nodeUri(path);
    return [...this.#own.keys()].filter((uri) => uri === root || uri.startsWith(`${root}/`));
  }

  #set(uri: string, acl: string | undefined): void {
    this.#own.begin();
    this.#own.set(uri, acl);
    this.commit();
  }
}
