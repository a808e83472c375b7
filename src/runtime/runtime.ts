import type { Digest } from '../image/digest.ts';
import type { BlobDescriptor } from '../image/image.ts';
import type { Platform } from '../image/platform.ts';
import type { NodeFacts } from '../node/facts.ts';
import type { Script, Sections } from '../node/script.ts';
import type { Pins } from './cri.ts';
import type { Names } from './names.ts';

/** What a node's runtime holds under a reference, in its own words. */
export interface HeldImage {
  /** Digest of the image config, as the CRI reports it; where there is no `crictl`, as the runtime's own client does. */
  readonly imageId: string;
  readonly os: string;
  readonly architecture: string;
  /** Whether the layers are unpacked, so that a container can start without further work. */
  readonly unpacked: boolean;
  /** Whether the CRI keeps the kubelet from collecting the image; `undefined` where it was not asked. */
  readonly isPinned?: boolean | undefined;
  /** Who said so. */
  readonly witness: 'crictl' | 'ctr' | 'docker' | 'podman';
}

/** A reference, and the one that is to name the same content. */
export interface TagPair {
  readonly from: string;
  readonly to: string;
}

/** A layer that a node is asked for. */
export interface AskedLayer {
  readonly diffId: Digest;
  /** Digest of this layer on top of those below it (OCI image-spec, config: ChainID). */
  readonly chainId: Digest;
  /** The blob that the runner has for it. */
  readonly blob: BlobDescriptor | undefined;
}

/**
 * The commands of one kind of runtime. It composes commands and reads their output; it opens no connection.
 * References are fully qualified everywhere.
 */
export interface Runtime {
  /**
   * The command that reads an OCI archive on its standard input and imports it, unpacked, for one platform. Where the
   * client takes it, the stage name is part of the command line, so that an import can be found among the processes;
   * `docker load` takes none.
   */
  importArchive(facts: NodeFacts, stage: string, platform: Platform): readonly string[];
  /**
   * Asks what is held under each of the references.
   * @param spellings by reference, how pods write it, where a runtime looks names up by rules of its own: it is asked for that
   */
  inspect(facts: NodeFacts, references: readonly string[], spellings?: ReadonlyMap<string, string>): Script;
  /** The answer to {@link Runtime.inspect}; `undefined` for a reference under which nothing is held. */
  held(sections: Sections, references: readonly string[]): ReadonlyMap<string, HeldImage | undefined>;
  /** Asks which of these layers, of any number of images, the node has. */
  layers(facts: NodeFacts, layers: readonly AskedLayer[]): Script;
  /**
   * The answer to {@link Runtime.layers} for the layers of one image, lowest first: for each the blobs by which a
   * manifest may name it so that the runtime finds the layer on the node; none when it has to be sent.
   */
  heldLayers(sections: Sections, layers: readonly AskedLayer[]): readonly (readonly BlobDescriptor[])[];
  /** The commands that remove the one reference of an image, and content with it that no other needs. */
  removeOne(facts: NodeFacts, reference: string, imageId: string): readonly (readonly string[])[];
  /** Whether a second import may begin while the first one unpacks what the second one builds on. */
  readonly canOverlap: boolean;
  /** Whether these words of a failed import say that content is missing which the archive left out. */
  lacksContent(said: string): boolean;
  /** Makes each `to` name the content of its `from`, whatever it named before. */
  tag(facts: NodeFacts, pairs: readonly TagPair[]): Script;
  /** Functions that handle names in scripts; `undefined` where a user may neither move nor remove any. */
  names(facts: NodeFacts): Names | undefined;
  /** Functions that pin images in scripts; `undefined` for a runtime that has no pins. */
  pins(): Pins | undefined;
  /**
   * Ends imports into these stage references that still run, and removes the references; what is not there is no error.
   * Content that nothing refers to is left to the runtime.
   */
  remove(facts: NodeFacts, references: readonly string[]): Script;
}
