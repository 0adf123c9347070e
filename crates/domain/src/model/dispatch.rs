//! Whose call goes next: which lanes are ready, how they are filed, and what a start does.

use crate::{Attempt, CallId, CallStatus, CallType, CampaignId, ItemStatus, QueueItemId, UserId};

use super::{Fault, PriorityViolation, Queue, Start, User};

impl User {
    /// The item that goes first when this lane's turn comes. A campaign lane looks across the
    /// user's open campaigns that are below their limits: the highest priority goes first, among
    /// campaigns whose heads have the same the one whose turn it is.
    pub(super) fn head(&self, class: CallType) -> Option<QueueItemId> {
        match class {
            CallType::Direct => self.direct_line.values().next().copied(),
            CallType::Campaign => self.next_campaign_call().map(|(_, item)| item),
        }
    }

    /// The head of the campaign lane and the campaign it is of.
    pub(super) fn next_campaign_call(&self) -> Option<(CampaignId, QueueItemId)> {
        let heads = self.campaigns.iter().filter(|(_, one)| one.may_go());
        let heads = heads.filter_map(|(id, campaign)| {
            let ((priority, _), item) = campaign.line.first_key_value()?;
            let turn = campaign.turn.max(self.campaign_vtime);
            Some(((*priority, turn, *id), *item))
        });
        heads.min().map(|((_, _, id), item)| (id, item))
    }

    /// Counts a start against its campaign, and moves its turn on. A campaign that is the only open
    /// one and has no limit has all turns: they are not counted.
    pub(super) fn campaign_went(&mut self, id: CampaignId) {
        let several = self.campaigns.values().filter(|one| one.open).count() > 1;
        let Some(campaign) = self.campaigns.get_mut(&id) else {
            return;
        };
        campaign.active += 1;
        if several || campaign.limit.is_some() {
            let turn = campaign.turn.max(self.campaign_vtime);
            campaign.turn = turn + campaign.weight.stride();
            self.campaign_vtime = turn;
        }
    }

    /// Slots this lane's class may still take under the user's limit.
    fn free_slots(&self, class: CallType) -> u32 {
        let limit = match class {
            CallType::Direct => self.limit,
            CallType::Campaign => self.limit.saturating_sub(self.direct_reserved_slots),
        };
        limit.saturating_sub(self.active())
    }

    /// Whether the lane's head could go were a system slot free.
    pub(super) fn is_ready(&self, class: CallType) -> bool {
        let may_go = match class {
            CallType::Direct => true,
            // A direct call that is held back still goes before its own user's campaigns.
            CallType::Campaign => self.direct_line.is_empty(),
        };
        may_go
            && self.head(class).is_some()
            && self.free_slots(class) > 0
            && self.lane(class).hold_until.is_none()
    }
}

impl Queue {
    /// Whether a user's lane is ready. Both kinds need a due item, a slot free under the user's
    /// limit and no hold. A campaign lane counts only open campaigns, leaves
    /// `direct_reserved_slots` alone, and is never ready while a due direct call of the same user
    /// waits, held or not.
    #[must_use]
    pub fn is_ready(&self, user_id: UserId, class: CallType) -> bool {
        self.users
            .get(&user_id)
            .is_some_and(|user| user.is_ready(class))
    }

    pub(super) fn any_ready(&self, class: CallType) -> bool {
        self.users.values().any(|user| user.is_ready(class))
    }

    /// Whether the system lets anything start.
    pub(super) const fn has_free_slot(&self) -> bool {
        !self.system.dispatch_paused && self.system.active < self.system.limit
    }

    /// Files each ready lane at its own turn or the class's virtual time, the later.
    ///
    /// A lane that was ready before is already there: virtual time never passes a ready lane. So
    /// nothing needs to be known of who was ready, as long as this runs before virtual time moves.
    pub(super) fn file_ready_lanes(&mut self) {
        for class in CallType::ALL {
            let vtime = self.system.vtime(class);
            for user in self.users.values_mut().filter(|user| user.is_ready(class)) {
                let lane = user.lane_mut(class);
                lane.turn = lane.turn.max(vtime);
            }
        }
    }

    /// The ready lane whose turn it is.
    fn next_lane(&self, class: CallType) -> Option<UserId> {
        self.users
            .iter()
            .filter(|(_, user)| user.is_ready(class))
            .map(|(id, user)| (user.lane(class).turn, *id))
            .min()
            .map(|(_, id)| id)
    }

    /// Starts waiting calls of a class, turn by turn, while there is a slot and budget is left.
    pub(super) fn hand_out(&mut self, class: CallType, budget: &mut u32) -> Vec<Start> {
        let mut starts = Vec::new();
        while *budget > 0 && self.has_free_slot() {
            // As `settle` stands, slots and budget run out before ready direct lanes are left over.
            // The rule is stated all the same.
            if class == CallType::Campaign && self.any_ready(CallType::Direct) {
                break;
            }
            let Some(user_id) = self.next_lane(class) else {
                break;
            };
            let head = self.users.get(&user_id).and_then(|user| user.head(class));
            starts.extend(head.and_then(|id| {
                self.take_turn(user_id, class, self.system.vtime(class));
                self.start(id)
            }));
            *budget -= 1;
        }
        starts
    }

    /// Gives the item a slot, whatever the rules say; a rule that speaks against it becomes a
    /// fault.
    pub(super) fn start(&mut self, id: QueueItemId) -> Option<Start> {
        self.witness_start(id);
        self.leave_line(id);
        self.set_status(id, ItemStatus::Processing);
        let item = self.items.get_mut(&id)?;
        let call_id = CallId::from(id.as_uuid());
        item.attempts += 1;
        item.call_id = Some(call_id);
        item.call_status = Some(CallStatus::Dialing);
        let class = item.origin.call_type();
        let campaign = item.origin.campaign_id();
        let start = Start {
            item_id: id,
            user_id: item.user_id,
            attempt: Attempt {
                call_id,
                number: item.attempts,
            },
        };

        let user = self.users.get_mut(&start.user_id)?;
        user.lane_mut(class).active += 1;
        if let Some(campaign) = campaign {
            user.campaign_went(campaign);
        }
        self.system.active += 1;
        self.file_ready_lanes();
        Some(start)
    }

    /// Moves a lane back by one turn, from its own or from `since`, the later. Calls that start at
    /// the door in one settlement all count from the virtual time at which it opened.
    pub(super) fn take_turn(&mut self, user_id: UserId, class: CallType, since: i64) {
        let Some(user) = self.users.get_mut(&user_id) else {
            return;
        };
        let stride = user.weight.stride();
        let lane = user.lane_mut(class);
        let turn = lane.turn.max(since);
        lane.turn = turn + stride;
        let vtime = self.system.vtime_mut(class);
        *vtime = turn.max(*vtime);
    }

    /// Holds a start against the limits, the order within its lane, and direct before campaign.
    fn witness_start(&mut self, id: QueueItemId) {
        let Some(item) = self.items.get(&id) else {
            return;
        };
        let Some(user) = self.users.get(&item.user_id) else {
            return;
        };
        let class = item.origin.call_type();
        if !self.has_free_slot() || user.free_slots(class) == 0 {
            self.faults.push(Fault::StartWithoutSlot(id));
        }
        if user.head(class) != Some(id) {
            self.faults.push(Fault::OutOfOrder(id));
        }
        if class == CallType::Campaign {
            let own = user.head(CallType::Direct);
            let others = self.users.values().filter_map(|other| {
                let ready = other.is_ready(CallType::Direct);
                ready.then(|| other.head(CallType::Direct)).flatten()
            });
            let passed = own.into_iter().chain(others).next();
            self.violations
                .extend(passed.map(|direct_item| PriorityViolation {
                    campaign_item: id,
                    direct_item,
                }));
        }
    }

    /// Frees the slot an item holds.
    pub(super) fn free_slot(&mut self, id: QueueItemId) {
        let Some(item) = self.items.get(&id) else {
            return;
        };
        let class = item.origin.call_type();
        let campaign = item.origin.campaign_id();
        if let Some(user) = self.users.get_mut(&item.user_id) {
            user.lane_mut(class).active -= 1;
            if let Some(campaign) = campaign.and_then(|id| user.campaigns.get_mut(&id)) {
                campaign.active -= 1;
            }
            user.ceiling = user.ceiling.min(user.active());
        }
        self.system.active -= 1;
        self.system.ceiling = self.system.ceiling.min(self.system.active);
    }
}
