/** One asker for each skill: a question about a scene, its exact answer, and the balance between answers. */
import { askCaption, askColor, askDetailedDescription, askSetting } from './appearance.ts'
import { askComparison, askOddOneOut } from './comparisons.ts'
import type { Asker, Context, Exchange, Skill } from './exchange.ts'
import { askMultiHop } from './multi-hop.ts'
import { askCount, askExistence, askListing } from './presence.ts'
import { askReasoning } from './reasoning.ts'
import { askCategoryAt, askNearest, askPosition, askRelation } from './space.ts'
import { askUnknowable } from './unknowable.ts'

export { type Context, type Exchange, type Negative, type Skill, skills } from './exchange.ts'

/** One exchange of a skill; undefined when the scene does not allow it or the answer would unbalance the skill. */
export function ask(context: Context, skill: Skill): Exchange | undefined {
  return askers[skill](context)
}

const askers: Readonly<Record<Skill, Asker>> = {
  existence: askExistence,
  count: askCount,
  position: askPosition,
  relation: askRelation,
  listing: askListing,
  'category-at': askCategoryAt,
  color: askColor,
  setting: askSetting,
  caption: askCaption,
  'detailed-description': askDetailedDescription,
  comparison: askComparison,
  'odd-one-out': askOddOneOut,
  nearest: askNearest,
  'multi-hop': askMultiHop,
  reasoning: askReasoning,
  unknowable: askUnknowable,
}
