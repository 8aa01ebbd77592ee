import { type Acl, allows, parseAcl, type Right, scrubbed } from './acl.ts';
import type { AclStore } from './node-store.ts';
import { UndoableMap } from './undoable-map.ts';
import { type NodePath, nodeUri } from './uri.ts';

/** The ACLs of a tree: each node's own, and by inheritance the one that counts. Changes can be taken back. */
export class TreeAcls {
  readonly #store: AclStore;
  /** ACLs as text, by URI of the node that has it. */
  readonly #own = new UndoableMap<string>();

  constructor(store: AclStore) {
    this.#store = store;
    for (const uri of store.uris()) this.#own.set(uri, store.get(uri));
  }

  /** The node's own ACL as text; none when it inherits. */
  own(path: NodePath): string | undefined {
    return this.#own.get(nodeUri(path));
  }

  /** Whether this server has the right at this node, by its own ACL or an inherited one. */
  permits(path: NodePath, right: Right, serverId: string): boolean {
    return allows(this.#effective(path), right, serverId);
  }

  /** No ACL: the node inherits from here on. */
  set(path: NodePath, acl: string | undefined): void {
    this.#set(nodeUri(path), acl);
  }

  /** A node got another path, with all below it. */
  move(from: NodePath, to: NodePath): void {
    for (const uri of this.#urisFrom(from)) {
      this.#set(nodeUri(to) + uri.slice(nodeUri(from).length), this.#own.get(uri));
      this.#set(uri, undefined);
    }
  }

  /** A node is gone, with all below it. */
  drop(path: NodePath): void {
    for (const uri of this.#urisFrom(path)) this.#set(uri, undefined);
  }

  /** A server is gone: its name goes from every ACL (section 7.7.1.4). */
  forgetServer(serverId: string): void {
    for (const uri of [...this.#own.keys()]) {
      const acl = this.#own.get(uri);
      if (acl === undefined) continue;
      const left = scrubbed(acl, serverId);
      if (left !== acl) this.#set(uri, left === '' && uri !== '.' ? undefined : left);
    }
  }

  begin(): void {
    this.#own.begin();
  }

  /** Of the outermost level: writes what changed. */
  commit(): void {
    this.#write(this.#own.commit());
  }

  rollback(): void {
    this.#own.rollback();
  }

  #effective(path: NodePath): Acl {
    for (let length = path.length; length >= 0; length--) {
      const own = this.own(path.slice(0, length));
      if (own !== undefined) return parseAcl(own);
    }
    return new Map();
  }

  #urisFrom(path: NodePath): string[] {
    const root = nodeUri(path);
    return [...this.#own.keys()].filter((uri) => uri === root || uri.startsWith(`${root}/`));
  }

  #set(uri: string, acl: string | undefined): void {
    this.#own.set(uri, acl);
    if (!this.#own.isOpen) this.#write([uri]);
  }

  #write(uris: readonly string[]): void {
    for (const uri of uris) this.#store.set(uri, this.#own.get(uri));
  }
}
